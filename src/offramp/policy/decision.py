"""Decision: at which exit a sample is answered, for calibration, simulation and server alike."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Thresholds = Sequence[float | None]
"""One per early exit, None if the exit is disabled; the last exit has no threshold."""


def fires(score: float, threshold: float | None) -> bool:
    """Whether an early exit answers one sample: it is enabled and the score reaches its threshold.

    All code that decides, for one sample or many, follows this rule.
    """
    return threshold is not None and score >= threshold


def leaving(scores: NDArray[np.float64], thresholds: Thresholds) -> NDArray[np.int64]:
    """First exit that fires, (N,) from scores (E, N) or (E - 1, N); the last one always does."""
    leaves = np.full(scores.shape[1], len(thresholds), np.int64)
    for exit in reversed(range(len(thresholds))):
        threshold = thresholds[exit]
        if threshold is not None:
            leaves[scores[exit] >= threshold] = exit
    return leaves


def soonest(expected_ms: ArrayLike) -> NDArray[np.float64]:
    """Earliest expected time of each exit or any later one, ascending, (E,) from times (E,).

    A later exit may be faster than an earlier one with a slow branch.
    """
    expected = np.asarray(expected_ms, np.float64)
    times: NDArray[np.float64] = np.minimum.accumulate(expected[::-1])[::-1]
    return times


def reached(expected_ms: ArrayLike, allowed_ms: ArrayLike) -> NDArray[np.int64]:
    """Last exit expected to answer in time, or -1: (N,) from expected (E,) and allowed (N,) times.

    A stage that would end too late does not start.
    """
    allowed = np.asarray(allowed_ms, np.float64)
    return np.searchsorted(soonest(expected_ms), allowed, side="right") - 1


def by_deadline(leave: int, soonest_ms: Sequence[float], allowed_ms: float) -> int:
    """The exit that answers one request: the one that fires, or the last one in time.

    `leave` is the exit that fires without a deadline (see `leaving`), or the last exit if that is
    not known yet. `soonest_ms` is the result of `soonest`. Returns -1 if no exit can answer in
    time.
    """
    return min(leave, bisect_right(soonest_ms, allowed_ms) - 1)
