"""Decision: when an answer leaves. Calibration, simulation and server all decide by this file."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Thresholds = Sequence[float | None]
"""One per early exit; None where the exit is disabled. The last exit has none."""


def fires(scores: ArrayLike, threshold: float | None) -> NDArray[np.bool_]:
    """Whether an early exit answers: its score is at least its threshold; never where disabled."""
    scores = np.asarray(scores, np.float64)
    if threshold is None:
        return np.zeros(scores.shape, bool)
    fired: NDArray[np.bool_] = scores >= threshold
    return fired


def leaving(scores: NDArray[np.float64], thresholds: Thresholds) -> NDArray[np.int64]:
    """First exit that fires, (N,) from scores (E, N) or (E - 1, N); the last always answers."""
    leaves = np.full(scores.shape[1], len(thresholds), np.int64)
    for exit in reversed(range(len(thresholds))):
        leaves[fires(scores[exit], thresholds[exit])] = exit
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

    -1 where not even one is. A stage is not begun that would end too late.
    """
    allowed = np.asarray(allowed_ms, np.float64)
    return np.searchsorted(soonest(expected_ms), allowed, side="right") - 1


def by_deadline(leave: int, soonest_ms: Sequence[float], allowed_ms: float) -> int:
    """Exit that answers one request in the time allowed: the one that fires, or the last in time.

    `leave` is the exit that would fire with all time, as `leaving` gives it, or the last one while
    that is not known yet; `soonest_ms` is what `soonest` gives; -1 where no answer can be in time.
    """
    return min(leave, bisect_right(soonest_ms, allowed_ms) - 1)
