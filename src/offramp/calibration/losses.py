"""Losses: what leaving at an exit costs in quality, against the final exit, sample by sample."""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError
from offramp.outputs import ExitOutputs
from offramp.policy.promise import Goal
from offramp.task import measure_of

GOALS: tuple[Goal, ...] = get_args(Goal)
_STEPS = 2.0**32  # to a scale: sums of losses on this grid are exact, so in any order the same


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of each exit's answers, (E, N); those of the final exit are 0.

    Attributes:
        goal: A drop is 1 where only the final exit is right and -1 where only the early one is; a
            disagreement is 1; a rise is how much larger the absolute error is.
        values: (E, N).
        bound: What rises are clipped at; None for the others.
        scale: A power of two, at most the bound and more than half of it; 1 for the others.
    """

    goal: Goal
    values: NDArray[np.float64]
    bound: float | None = None
    scale: float = 1.0


def losses_of(outputs: ExitOutputs, goal: Goal, loss_bound: float | None = None) -> Losses:
    """The losses that a goal speaks of; rises are clipped, and kept to about 2^-32 of the bound.

    Raises:
        PlanError: The goal does not fit the task.
    """
    _check(outputs, goal, loss_bound)
    if goal == "max_disagreement":
        predictions = outputs.predictions
        return Losses(goal, (predictions != predictions[-1]).astype(np.float64))
    values = measure_of(outputs.task).values(outputs.outputs, outputs.labels)
    if goal == "max_drop":
        return Losses(goal, values[-1] - values)
    rises = values - values[-1]
    bound = float(loss_bound or 1.0)
    scale = 2.0 ** math.floor(math.log2(bound))
    most = math.floor(bound / scale * _STEPS)
    steps = np.clip(np.ceil(np.clip(rises, -bound, bound) / scale * _STEPS), -most, most)
    return Losses(goal, steps / _STEPS * scale, bound, scale)


def _check(outputs: ExitOutputs, goal: Goal, loss_bound: float | None) -> None:
    regression = outputs.task == "regression"
    if regression != (goal == "max_rise"):
        fitting = "max_rise, in the labels' unit" if regression else "max_drop or max_disagreement"
        raise PlanError(
            f"{goal} does not fit a {outputs.task}. Wish for {fitting}, or give a budget."
        )
    if regression and loss_bound is None:
        raise PlanError(
            "max_rise needs loss_bound: the most that a single error may rise, in the labels' "
            "unit, such as the width of the labels' range. No number of samples rules out a rare, "
            "huge error, so larger rises count as this much, and the promise says so."
        )
    if loss_bound is not None and not (regression and 0 < loss_bound < np.inf):
        raise PlanError(
            f"loss_bound={loss_bound!r} is what single rises of a regression's error are clipped "
            "at: a positive number, in the labels' unit, with max_rise. Leave it out otherwise."
        )
