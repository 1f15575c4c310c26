"""Facts of a model with exits: what it reads, where it answers, and what that costs."""

from collections.abc import Iterable
from typing import Self

from pydantic import NonNegativeInt, PositiveInt

from offramp.answering.inputs import NONE, Numbers, input_numbers
from offramp.cost import joined
from offramp.errors import OfframpError
from offramp.preprocess import ImagePreprocess, Preprocess, SpectrogramPreprocess
from offramp.preprocess.media import IMAGES, SOUNDS
from offramp.spec import FINAL, Spec
from offramp.task import Task


class InputFacts(Spec):
    """One input.

    Attributes:
        name: Name of the network's argument.
        shape: Without the batch axis.
        dtype: Type of its numbers, as numpy names it.
        preprocess: How files become this input; None if that is not known.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: str = "float32"
    preprocess: Preprocess | None = None


class ExitFacts(Spec):
    """One exit.

    Attributes:
        name: Name of its cut; `final` for the last one, the network's own.
        branch: Label of its branch, with the seed if several were trained; empty for the last.
        needs: Numbers of the inputs without which it cannot answer.
        flops: FLOPs of its branch (2mac, one sample); 0 for the last exit.
        predicts_error: Whether its branch gives a score of its own.
    """

    name: str
    branch: str = ""
    needs: tuple[NonNegativeInt, ...] = ()
    flops: NonNegativeInt = 0
    predicts_error: bool = False


class StageCosts(Spec):
    """FLOPs of each stage (2mac, one sample), where inputs are absent or all are there.

    Attributes:
        without: Numbers of the absent inputs; what needs them is not computed.
        flops: Of each stage between cuts, one more than there are cuts.
    """

    without: tuple[NonNegativeInt, ...] = ()
    flops: tuple[NonNegativeInt, ...]


class ModelFacts(Spec):
    """What has to be known of a model to prepare samples for it and to account for its answers.

    Attributes:
        task: What it answers.
        inputs: In the order of the network's arguments.
        cuts: Names of all cuts, in order; a cut without a branch is not an exit.
        exits: In order; the last one is the network's own.
        costs: FLOPs of the stages: first with all inputs, then without those that some exits can
            do without.
        num_outputs: K, the outputs of every exit.
        class_names: Names of the classes, or of the value of a regression; empty if not known.
    """

    task: Task
    inputs: tuple[InputFacts, ...]
    cuts: tuple[str, ...]
    exits: tuple[ExitFacts, ...]
    costs: tuple[StageCosts, ...]
    num_outputs: PositiveInt
    class_names: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the exits."""
        return tuple(each.name for each in self.exits)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(each.name for each in self.inputs)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs, without the batch axis."""
        return tuple(each.shape for each in self.inputs)

    @property
    def preprocess(self) -> tuple[Preprocess, ...]:
        """Preprocessing of each input; empty if it is not known."""
        known = tuple(each.preprocess for each in self.inputs if each.preprocess is not None)
        return known if len(known) == len(self.inputs) else ()

    @property
    def predicts_error(self) -> bool:
        """Whether every branch, of at least one, gives a score of its own."""
        early = self.exits[:-1]
        return bool(early) and all(each.predicts_error for each in early)

    @property
    def value_name(self) -> str:
        """Name of the value of a regression, such as people; empty if not known, or for classes."""
        names = self.class_names
        return names[0] if self.task == "regression" and len(names) == 1 else ""

    @property
    def exits_text(self) -> str:
        """Which branch answers at each cut that has one, in words."""
        return ", ".join(f"{each.name}: {each.branch}" for each in self.exits[:-1])

    @property
    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files that it answers, those of its first input."""
        first = self.preprocess[0] if self.preprocess else None
        return (SOUNDS if isinstance(first, SpectrogramPreprocess) else IMAGES).endings

    @property
    def endings_beside(self) -> tuple[str, ...]:
        """Endings of the files that belong to these, such as the sounds of pictures."""
        return SOUNDS.endings if len(self.preprocess) > 1 else ()

    @property
    def hears_beside(self) -> bool:
        """Whether a sample is a picture with the sound file beside it."""
        kinds = [type(each) for each in self.preprocess]
        return kinds == [ImagePreprocess, SpectrogramPreprocess]

    def numbers(self, given: int | str | Iterable[int | str]) -> Numbers:
        """The inputs that are named, or counted from 0.

        Raises:
            PlanError: There is no such input.
        """
        return input_numbers(self.input_names, given)

    def names_of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Names of these inputs, in order."""
        return tuple(self.input_names[number] for number in sorted(numbers))

    def refusing(self, absent: Numbers) -> dict[str, Numbers]:
        """The exits that cannot answer where inputs are absent, each with those that it needs."""
        found = {each.name: absent.intersection(each.needs) for each in self.exits}
        return {name: needs for name, needs in found.items() if needs}

    def exits_without(self, without: int | str | Iterable[int | str]) -> tuple[str, ...]:
        """Names of the exits that answer without these inputs, named or counted from 0.

        Raises:
            PlanError: There is no such input.
        """
        refused = self.refusing(self.numbers(without))
        return tuple(name for name in self.names if name not in refused)

    def flops(self, names: Iterable[str], absent: Numbers = NONE) -> tuple[list[int], list[int]]:
        """FLOPs between one of these exits and the next, and of each one's own branch.

        Where the network's own answer needs an absent input, the last of these exits ends the
        network as its top, and the cost of its branch is part of the last stage.

        Raises:
            OfframpError: It is not known what the stages cost without these inputs.
        """
        chosen = [each for each in self.exits if each.name in set(names)]
        cuts = tuple(each.name for each in chosen if each.name != FINAL)
        stages = list(joined((*self.cuts, FINAL), cuts, self.stage_flops(absent)))
        branches = [each.flops for each in chosen if each.name != FINAL]
        if not absent.intersection(self.exits[-1].needs):
            return stages, [*branches, 0]
        *stages, _ = stages
        stages[-1] += branches[-1]
        return stages, [*branches[:-1], 0]

    def stage_flops(self, absent: Numbers = NONE) -> tuple[int, ...]:
        """FLOPs of each stage between cuts, without some inputs.

        Raises:
            OfframpError: They are not known.
        """
        for each in self.costs:
            if absent == frozenset(each.without):
                return each.flops
        raise OfframpError(
            f"it is not known what this model costs without {self.names_of(absent)}."
        )

    def renamed(self, class_names: Iterable[str]) -> Self:
        """The same with other names of classes."""
        return self.model_copy(update={"class_names": tuple(class_names)})
