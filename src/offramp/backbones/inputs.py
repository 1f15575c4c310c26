"""Inputs of a cut backbone: their names, and which of them taps and answer are computed from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from torch import fx

from offramp.arguments import check_kind
from offramp.backbones.partition import Flow
from offramp.errors import PlanError

Numbers = frozenset[int]
"""Some of the inputs, counted from 0."""
NONE: Numbers = frozenset()


@dataclass(frozen=True)
class Inputs:
    """Inputs of a cut backbone, and what is computed from which of them.

    Attributes:
        names: Names of `forward`'s arguments, in order.
        of_taps: For each cut and each of its taps, the inputs that it is computed from.
        of_answer: The inputs that the backbone's own answer is computed from.
    """

    names: tuple[str, ...]
    of_taps: Mapping[str, tuple[Numbers, ...]]
    of_answer: Numbers

    @classmethod
    def of(cls, flow: Flow, taps: Mapping[str, tuple[fx.Node, ...]], answer: fx.Node) -> Self:
        """Follow each tap (given by cut) and the answer back to the inputs."""
        numbers = {node: number for number, node in enumerate(flow.inputs)}

        def needs(node: fx.Node) -> Numbers:
            return frozenset(numbers[each] for each in flow.ancestors([node]) if each in numbers)

        return cls(
            tuple(str(node.target) for node in flow.inputs),
            {cut: tuple(map(needs, nodes)) for cut, nodes in taps.items()},
            needs(answer),
        )

    def numbers(self, given: int | str | Iterable[int | str]) -> Numbers:
        """The inputs that are named, or counted from 0.

        Raises:
            PlanError: There is no such input.
        """
        known_names = " or ".join(map(repr, self.names))
        remedy = f"Give names of inputs ({known_names}) or their positions, counted from 0."
        check_kind(given, (int, str, Iterable), "the inputs", remedy)
        found = set()
        for each in [given] if isinstance(given, int | str) else given:
            check_kind(each, (int, str), "an input", remedy)
            known = each in self.names if isinstance(each, str) else 0 <= each < len(self.names)
            if not known:
                raise PlanError(f"the backbone has no input {each!r}. {remedy}")
            found.add(self.names.index(each) if isinstance(each, str) else each)
        return frozenset(found)

    def text(self, numbers: Iterable[int]) -> str:
        """How messages call inputs: each by its number and its name."""
        return " and ".join(f"input {each} ({self.names[each]!r})" for each in sorted(numbers))
