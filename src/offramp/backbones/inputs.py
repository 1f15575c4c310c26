"""Inputs of a cut backbone: their names, and which of them taps and answer are computed from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from torch import fx

from offramp.answering.inputs import Numbers, input_numbers, inputs_text
from offramp.backbones.partition import Flow


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
        return input_numbers(self.names, given)

    def text(self, numbers: Iterable[int]) -> str:
        """How messages call inputs: each by its number and its name."""
        return inputs_text(self.names, numbers)
