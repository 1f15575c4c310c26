"""What an answer costs, as plain numbers: FLOPs, milliseconds, and two ways to add them up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Number = TypeVar("Number", int, float)

Convention = Literal["2mac", "paper"]
"""How FLOPs are counted: `2mac` is twice the multiply-adds of convolutions, linear layers and
attention; `paper` is the TensorFlow profiler's count on a Keras graph, as in the paper's tables."""


@dataclass(frozen=True)
class Timing:
    """Measured time of one call.

    Attributes:
        median_ms: Over `repeats` calls.
        low_ms: The 10th percentile.
        high_ms: The 90th percentile.
        repeats: Calls counted, after `warmup` calls that were not.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    warmup: int

    def __str__(self) -> str:
        return f"{self.median_ms:.2f} [{self.low_ms:.2f}, {self.high_ms:.2f}]"


def own_path(stages: ArrayLike, branches: ArrayLike) -> NDArray[np.float64]:
    """Cost of each exit on its own path: the stages up to it and its own branch, (E,) from (E,).

    The paper's "Total FLOPS" (section 4.4); it pays for no branch passed on the way.
    """
    return np.cumsum(np.asarray(stages, np.float64)) + np.asarray(branches, np.float64)


def with_passed(
    stages: ArrayLike, branches: ArrayLike, active: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Cost of each exit with the branches passed on the way, (E,) from (E,): what a policy pays.

    `active` (E,) says which branches run at all; None means all of them.
    """
    runs = np.asarray(branches, np.float64)
    if active is not None:
        runs = runs * np.asarray(active, bool)
    return np.cumsum(np.asarray(stages, np.float64)) + np.cumsum(runs)


def joined(
    ends: Sequence[str], exits: Sequence[str], per_stage: Sequence[Number]
) -> tuple[Number, ...]:
    """Sum the stages from exit to exit, since a cut without a branch is not an exit.

    Args:
        ends: What each stage ends with: a cut, or the network's end for the last one.
        exits: The ends that are exits; the last end always is.
        per_stage: Cost of each stage alone.
    """
    sums: list[Number] = []
    running: Number = per_stage[0] - per_stage[0]
    for name, cost in zip(ends, per_stage, strict=True):
        running += cost
        if name in exits or name == ends[-1]:
            sums.append(running)
            running -= running
    return tuple(sums)
