"""What an answer costs, as plain numbers: FLOPs, milliseconds, and two ways to add them up."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
