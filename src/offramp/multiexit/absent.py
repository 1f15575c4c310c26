"""Exits that can answer where inputs are absent, and why the others cannot."""

from offramp.backbones.inputs import Inputs, Numbers
from offramp.branches.absent import answers_without_sides


def needed_inputs(inputs: Inputs, cut: str, spec: object) -> Numbers:
    """The inputs without which a branch of these settings at a cut cannot answer.

    They are those of its map, and unless it has learned to answer without, those of its sides.
    """
    first, *sides = inputs.of_taps[cut]
    return first if answers_without_sides(spec) else first.union(*sides)
