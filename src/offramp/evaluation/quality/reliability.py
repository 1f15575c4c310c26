"""Reliability: what share is right among answers of about the same confidence."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.quality.ranks import midranks
from offramp.policy.scores import max_softmax


@dataclass(frozen=True, eq=False)
class Reliability:
    """Bins of equal mass over the maximum softmax; only bins that hold samples.

    Attributes:
        confidence: (B,) mean maximum softmax of each bin.
        accuracy: (B,) share of right answers in it.
        counts: (B,) samples in it.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy, 0 to 1.

        It is too large on few samples, for chance alone sets the two apart.
        """
        return float(np.average(self._gaps, weights=self.counts))

    @property
    def debiased_ece(self) -> float:
        """The same less an estimate of what chance adds, never below 0.

        Kumar et al. 2019, in closed form. Of well calibrated answers, where chance is all there
        is, it takes off about 40 %; of a large error next to nothing.
        """
        deviation = np.sqrt(self.accuracy * (1 - self.accuracy) / self.counts)
        added = _mean_distances(self._gaps, deviation) - self._gaps
        return max(0.0, float(np.average(self._gaps - added, weights=self.counts)))

    @property
    def _gaps(self) -> NDArray[np.float64]:
        gaps: NDArray[np.float64] = np.abs(self.accuracy - self.confidence)
        return gaps

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "confidence": self.confidence.tolist(),
            "accuracy": self.accuracy.tolist(),
            "counts": self.counts.tolist(),
        }


def reliability(
    logits: NDArray[np.float32],
    right: NDArray[np.bool_],
    temperature: float = 1.0,
    bins: int = 15,
) -> Reliability:
    """Bins of one exit from its logits (N, K) and whether it is right (N,).

    Bins divide the ranks of the confidences evenly; equal confidences share a bin.
    """
    sure = max_softmax(logits.astype(np.float64) / temperature)
    share = (midranks(sure) - 0.5) / len(sure)
    _, place, counts = np.unique(
        (bins * share).astype(np.int64), return_inverse=True, return_counts=True
    )
    return Reliability(
        np.bincount(place, sure) / counts, np.bincount(place, right) / counts, counts
    )


def _mean_distances(
    gaps: NDArray[np.float64], deviations: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of |X| for normal X with these means and standard deviations (folded normal)."""
    return np.array(
        [_mean_distance(*pair) for pair in zip(gaps.tolist(), deviations.tolist(), strict=True)]
    )


def _mean_distance(gap: float, deviation: float) -> float:
    if deviation == 0:
        return gap
    steps = gap / deviation
    spread = deviation * math.sqrt(2 / math.pi) * math.exp(-(steps**2) / 2)
    return spread + gap * (1 - 2 * NormalDist().cdf(-steps))
