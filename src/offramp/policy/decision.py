"""Decision: when an answer leaves. Calibration, simulation and server all decide by this file."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Thresholds = Sequence[float | None]
"""One per early exit; None where the exit is disabled. The last exit has none."""


def fires(score: float, threshold: float | None) -> bool:
    """Whether an early exit answers one sample: its score is at least its threshold.

    Never where it is disabled. Everything that decides, one sample or many, decides like this.
    """
    return threshold is not None and score >= threshold


def leaving(scores: NDArray[np.float64], thresholds: Thresholds) -> NDArray[np.int64]:
    """First exit that fires, (N,) from scores (E, N) or (E - 1, N); the last always answers."""
    leaves = np.full(scores.shape[1], len(thresholds), np.int64)
    for exit in reversed(range(len(thresholds))):
        threshold = thresholds[exit]
        if threshold is not None:
            leaves[scores[exit] >= threshold] = exit
    return leaves


def soonest(expected_ms: ArrayLike) -> NDArray[np.float64]:
    """When each exit or a later one first answers, ascending, (E,) from expected (E,).

    A later exit may be expected before an earlier one, whose branch is slow.
    """
    expected = np.asarray(expected_ms, np.float64)
    times: NDArray[np.float64] = np.minimum.accumulate(expected[::-1])[::-1]
    return times


def reached(expected_ms: ArrayLike, allowed_ms: ArrayLike) -> NDArray[np.int64]:
    """Last exit whose answer is expected in time, (N,) from expected (E,) and allowed (N,).

    -1 where not even one is. A stage that would end too late is not started.
    """
    allowed = np.asarray(allowed_ms, np.float64)
    return np.searchsorted(soonest(expected_ms), allowed, side="right") - 1


def by_deadline(leave: int, soonest_ms: Sequence[float], allowed_ms: float) -> int:
    """Exit that answers one request in the time allowed: the one that fires, or the last in time.

    `leave` is the exit that would fire with all time, as `leaving` gives it, or the last one while
    that is not known yet; `soonest_ms` is what `soonest` gives; -1 where no answer can be in time.
    """
    return min(leave, bisect_right(soonest_ms, allowed_ms) - 1)
