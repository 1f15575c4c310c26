"""Costs of the exits of a model."""

from collections.abc import Sequence
from dataclasses import dataclass

from offramp.answering.inputs import NONE, Numbers
from offramp.backbones.staged import StagedBackbone
from offramp.compute import count_flops
from offramp.cost import joined
from offramp.multiexit.trial import Trial
from offramp.spec import FINAL


@dataclass(frozen=True)
class ExitTimings:
    """Median milliseconds on this machine of each stage alone and of each branch alone."""

    stage_ms: tuple[float, ...]
    branch_ms: tuple[float, ...]


def exit_flops(
    backbone: StagedBackbone, trials: Sequence[Trial], absent: Numbers = NONE
) -> tuple[list[int], list[int]]:
    """FLOPs (2mac, one sample) between one exit and the next, and of each exit's own branch.

    Args:
        backbone: The cut backbone.
        trials: The branches, in graph order.
        absent: Inputs that are left out: nothing that needs them is computed or counted, and where
            the backbone itself needs one, the last branch ends the network as its top, whose cost
            is part of the last stage.
    """
    cuts = tuple(trial.cut for trial in trials)
    stages = list(joined((*backbone.cuts, FINAL), cuts, backbone.stage_flops(absent=absent)))
    branches = [branch_flops(backbone, trial) for trial in trials]
    if not backbone.inputs.of_answer & absent:
        return stages, [*branches, 0]
    *stages, _ = stages
    stages[-1] += branches[-1]
    return stages, [*branches[:-1], 0]


def branch_flops(backbone: StagedBackbone, trial: Trial) -> int:
    """FLOPs of a branch alone (2mac, one sample)."""
    return count_flops(trial.branch, backbone.zero_taps(trial.cut))
