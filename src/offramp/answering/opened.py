"""Opened: a model that is ready to answer new samples, whatever engine runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.answer import Answer
from offramp.answering.choice import Choice
from offramp.answering.facts import ModelFacts
from offramp.answering.inputs import Numbers, absent_of
from offramp.answering.sample import Prepared, Sample, WhereAbsent, files_of, no_files, prepare
from offramp.answering.walk import Route, full_network
from offramp.arguments import as_items
from offramp.errors import DataError, ShapeError
from offramp.policy import ExitPolicy
from offramp.policy.scores import scaled, softmax

_TOGETHER = 64
_MOST_RULES = 64

Stacked = tuple[NDArray[Any] | None, ...]
"""The inputs of samples that lack the same ones, each with a batch axis; None for an absent one."""


class Opened(ABC):
    """A model and its policies, which answer new samples and stop early as the policy says.

    Each policy is for samples that have all inputs but those that it was calibrated without.

    Attributes:
        facts: What the model reads, where it answers, and what that costs.
    """

    def __init__(
        self,
        facts: ModelFacts,
        source: Mapping[str, Any],
        policies: Iterable[ExitPolicy],
        clock: Callable[[], float],
    ) -> None:
        self.facts = facts
        self._choice = Choice(facts, source, policies)
        self._clock = clock
        self._rules: dict[tuple[object, Numbers], _Rule] = {}
        self._whole_flops = sum(facts.flops(facts.names)[0])

    @abstractmethod
    def _routes(self, inputs: Stacked, policy: ExitPolicy) -> list[Route]:
        """Answer samples (B, ...) by a policy for exits that answer without what is absent."""

    @abstractmethod
    def _may_run_together(self) -> bool:
        """Whether several samples may run in one batch."""

    @property
    def policies(self) -> tuple[ExitPolicy, ...]:
        """One policy, the policies of a menu from the strictest on, or none."""
        return self._choice.policies

    @property
    def policies_without(self) -> Mapping[tuple[str, ...], tuple[ExitPolicy, ...]]:
        """The same for samples that lack inputs, by the names of these."""
        return self._choice.policies_without

    @property
    def no_files(self) -> str:
        """Reason why files cannot be answered; empty if they can."""
        return no_files(self.facts)

    @property
    def file_endings(self) -> tuple[str, ...]:
        """Endings of the files that it answers, those of its first input."""
        return self.facts.file_endings

    @property
    def endings_beside(self) -> tuple[str, ...]:
        """Endings of the files that belong to these, such as the sounds of pictures."""
        return self.facts.endings_beside

    def files_of(
        self, name: str, absent: WhereAbsent = "refuse"
    ) -> str | tuple[str | Path | None, ...]:
        """The files of one sample: this one, and the sound beside it if the model also reads one.

        Args:
            name: The file.
            absent: What happens where there is no sound: `answer` gives None in its place.

        Raises:
            DataError: There is no sound file of the same name, or several; the model reads other
                files; or there is no sound, and no exit answers without.
        """
        return files_of(self.facts, name, absent)

    def run(self, sample: Sample, policy: ExitPolicy | float | None = None) -> Answer:
        """Answer one sample.

        Args:
            sample: A path, the bytes of a picture file, pixels uint8 (H, W) or (H, W, C), or an
                input as the backbone reads it, without batch axis; a tuple for several inputs, with
                None for one that is absent. The exits that can do without it then answer, the last
                of them where no threshold is reached before.
            policy: An ExitPolicy; a limit of the model's menu, such as 0.01; or None for the
                model's own: the strictest of a menu, and the full network if there is no policy.
                Where inputs are absent the policies for such samples are meant, if there are some.
                An ExitPolicy that was calibrated without an input leaves it out of any sample.

        An answer without an input is `promised` only under a policy that was calibrated without it.

        Raises:
            DataError: The sample cannot be read, the model takes no files, or no exit answers
                without what is absent.
            ShapeError: It is not what the model reads, or the policy is for other exits.
            PlanError: No policy of the model promises that limit.
        """
        return self._answered([sample], policy)[0]

    def run_batch(
        self, samples: Iterable[Sample], policy: ExitPolicy | float | None = None
    ) -> list[Answer]:
        """Answer several samples, up to 64 at a time; each gets the exit that it gets alone.

        Arguments and errors are those of `run`; an error names the sample by its number.
        """
        every = as_items(samples, "samples", "Give a list of samples.")
        step = _TOGETHER if len(every) > 1 and self._may_run_together() else 1
        found: list[Answer] = []
        for first in range(0, len(every), step):
            found += self._answered(every[first : first + step], policy, first)
        return found

    def chosen(
        self, policy: ExitPolicy | float | None = None, absent: Iterable[int | str] = ()
    ) -> ExitPolicy | None:
        """The policy that `run` uses, with its promise if that holds here.

        Args:
            policy: As for `run`.
            absent: Inputs that the samples lack.

        Returns:
            None where the full network answers, or the last exit that can do without.

        Warns:
            PromiseWarning: It was certified for another engine, precision or model.

        Raises:
            ShapeError: It is for other exits.
            PlanError: No policy of the model promises that limit, or its score does not fit.
        """
        return self._choice.chosen(policy, absent)

    def _rule(self, policy: ExitPolicy | float | None, absent: Numbers) -> "_Rule":
        """What decides, found once for each policy and the inputs that are absent."""
        key = (policy if isinstance(policy, float | int) else id(policy), absent)
        if key not in self._rules:
            found = self.chosen(policy, absent)
            if found is None:
                whole = full_network(self.facts.task, self.facts.names)
                found = self._choice.only(whole, absent)
            costs = found.path_cost(*self.facts.flops(found.names, absent))
            if len(self._rules) >= _MOST_RULES:
                self._rules.clear()
            self._rules[key] = _Rule(found, tuple(map(int, costs)), policy)
        return self._rules[key]

    def _prepared(self, sample: Sample, policy: ExitPolicy | float | None) -> Prepared:
        """The inputs of a sample, but for those that the policy leaves out."""
        given = policy.without if isinstance(policy, ExitPolicy) else ()
        found = prepare(self.facts, sample, self.facts.numbers(given))
        self._choice.check_answered(absent_of(found))
        return found

    def _answered(
        self,
        samples: Sequence[Sample],
        policy: ExitPolicy | float | None,
        first: int | None = None,
    ) -> list[Answer]:
        """Answer samples together. Errors name a sample by its number, counted from `first`."""
        prepared, taken = [], []
        alike: dict[Numbers, list[int]] = {}
        for place, sample in enumerate(samples):
            before = self._clock()
            try:
                prepared.append(self._prepared(sample, policy))
            except (DataError, ShapeError) as error:
                if first is None:
                    raise
                raise type(error)(f"sample {first + place}: {error}") from error
            taken.append(1000 * (self._clock() - before))
            alike.setdefault(absent_of(prepared[-1]), []).append(place)
        found: dict[int, Answer] = {}
        for absent, places in alike.items():
            rule = self._rule(policy, absent)
            routes = self._routes(_stacked([prepared[place] for place in places]), rule.policy)
            for place, each in zip(places, routes, strict=True):
                flops = rule.flops[each.exit]
                found[place] = self._as_answer(each, rule.policy, taken[place], absent, flops=flops)
        return [found[place] for place in range(len(samples))]

    def _as_answer(
        self,
        found: Route,
        policy: ExitPolicy,
        ms: float,
        absent: Numbers,
        *,
        flops: int,
        fired: bool = True,
    ) -> Answer:
        """The answer of a route.

        Args:
            found: The route.
            policy: For the exits that answer without what is absent.
            ms: Milliseconds that preparing took.
            absent: Absent inputs.
            flops: Spent.
            fired: Whether it is the policy's own answer.
        """
        probabilities, label, name = None, None, None
        if self.facts.task == "classification":
            last = found.exit == len(policy.thresholds)
            temperatures = None if last else policy.temperatures
            probabilities = softmax(scaled(found.outputs, temperatures, found.exit)[None])[0]
            label = int(found.outputs.argmax())
            names = self.facts.class_names
            name = names[label] if label < len(names) else None
        return Answer(
            outputs=found.outputs,
            probabilities=probabilities,
            label=label,
            class_name=name,
            exit=policy.names[found.exit],
            score=found.score if np.isfinite(found.score) else None,
            stage_ms=found.stage_ms,
            total_ms=ms + sum(found.stage_ms),
            flops=flops,
            flops_saved=1 - flops / self._whole_flops,
            promised=fired and policy.promise is not None,
            absent=self.facts.names_of(absent),
        )


@dataclass(frozen=True, eq=False)
class _Rule:
    """What decides for samples.

    Attributes:
        policy: For the exits that answer without what is absent.
        flops: Spent where each of its exits answers.
        given: What it was found for, kept so that its id is not used again.
    """

    policy: ExitPolicy
    flops: tuple[int, ...]
    given: object


def _stacked(samples: Sequence[Prepared]) -> Stacked:
    """The inputs of samples that lack the same ones, with a batch axis."""
    columns = zip(*samples, strict=True)
    return tuple(None if column[0] is None else np.stack(column) for column in columns)
