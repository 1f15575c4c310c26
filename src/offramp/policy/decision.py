"""Decision: when an answer leaves. Calibration, simulation and server all decide by this file."""

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


def reached(expected_ms: ArrayLike, allowed_ms: ArrayLike) -> NDArray[np.int64]:
    """Last exit whose answer is expected in time, (N,) from expected (E,) and allowed (N,).

    -1 where not even one is. A stage is not begun that would end too late. A later exit may be
    expected before an earlier one, whose branch is slow.
    """
    expected = np.asarray(expected_ms, np.float64)
    soonest = np.minimum.accumulate(expected[::-1])[::-1]  # of each exit and those after it
    return np.searchsorted(soonest, np.asarray(allowed_ms, np.float64), side="right") - 1


def by_deadline(
    leaves: ArrayLike, expected_ms: ArrayLike, allowed_ms: ArrayLike
) -> NDArray[np.int64]:
    """Exit that answers in the time allowed, (N,): the one that fires, or the last in time.

    `leaves` (N,) are the exits that would fire with all time, as `leaving` gives them; -1 where
    no answer can be given in time.
    """
    exits: NDArray[np.int64] = np.minimum(leaves, reached(expected_ms, allowed_ms))
    return exits
