"""How well a score tells the samples that may leave here from those that should go on."""

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.quality.ranks import midranks


def nothing_lost(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether this exit is right, or no later exit is: (E, N) from (E, N).

    Where it holds, going on brings nothing (failure prediction for early exits, EEFP 2026). It
    holds for every sample at the last exit.
    """
    from_here_on: NDArray[np.bool_] = np.logical_or.accumulate(right[::-1])[::-1]
    later = np.concatenate([from_here_on[1:], np.zeros_like(right[:1])])
    lost: NDArray[np.bool_] = later & ~right
    return ~lost


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Chance that a positive scores above a negative, a tie being half; None if one is missing."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    above = midranks(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))
