"""Exits that can answer where inputs are absent, and why the others cannot."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.answering.inputs import Numbers, refusal
from offramp.backbones.inputs import Inputs
from offramp.backbones.staged import StagedBackbone
from offramp.branches.absent import answers_without_sides
from offramp.data import Batch, Samples
from offramp.features.absent import lacking, marked
from offramp.multiexit.trial import Trial
from offramp.spec import FINAL, dims


def needed_inputs(inputs: Inputs, cut: str, spec: object) -> Numbers:
    """The inputs without which a branch of these settings at a cut cannot answer.

    They are those of its map, and unless it has learned to answer without, those of its sides.
    """
    first, *sides = inputs.of_taps[cut]
    return first if answers_without_sides(spec) else first.union(*sides)


def refusing(inputs: Inputs, trials: Iterable[Trial], absent: Numbers) -> dict[str, Numbers]:
    """The exits that cannot answer where inputs are absent, each with those that it needs."""
    needed = {each.cut: needed_inputs(inputs, each.cut, each.spec) for each in trials}
    needed[FINAL] = inputs.of_answer
    return {name: needs & absent for name, needs in needed.items() if needs & absent}


def check_batch(
    backbone: StagedBackbone,
    trials: Sequence[Trial],
    samples: Samples,
    batch: Batch,
    without: Numbers,
) -> None:
    """Refuse samples that lack an input without which a branch or the backbone cannot answer.

    Inputs in `without` are left out for all samples, and with them exits that need these.

    Raises:
        DataError: Names the first such sample, what it lacks, and the exits that need it.
    """
    if batch.present is None:
        return
    unasked = refusing(backbone.inputs, trials, without).keys()
    for row, present in enumerate(batch.present):
        absent = frozenset(np.flatnonzero(~present).tolist()) - without
        refused = refusing(backbone.inputs, trials, absent)
        if refused := {name: needs for name, needs in refused.items() if name not in unasked}:
            others = dict.fromkeys(each.cut for each in trials if each.cut not in refused)
            lacks = f"{samples.name_of(int(batch.rows[row]))} lacks {backbone.inputs.text(absent)}"
            raise refusal(backbone.inputs.names, refused, tuple(others), f"{lacks}: ")


def taps_without(
    backbone: StagedBackbone,
    cut: str,
    taps: Sequence[Tensor | None],
    present: NDArray[np.bool_] | None = None,
) -> tuple[Tensor, ...]:
    """The taps of a cut, with NaN in what is absent for all samples, or by `present` for some.

    The first, the map, is there.
    """
    needs = backbone.inputs.of_taps[cut]
    first = next(tap for tap in taps if tap is not None)
    return tuple(
        first.new_full((len(first), *dims(shape)), torch.nan)
        if tap is None
        else marked(tap, lacking(present, needed))
        for tap, shape, needed in zip(taps, backbone.tap_shapes[cut], needs, strict=True)
    )
