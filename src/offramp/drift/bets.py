"""Bets: on which p-values, and how much, if a share has moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SINGLE = 0.5  # weight of bets on a single exit between others; the rest is on "up to this exit"
_KEPT = 0.25  # of a share and of the rest, at least so much stays, or one surprise would cost all


@dataclass(frozen=True, eq=False)
class Bets:
    """J bets; each multiplies its stake by one factor inside an interval and another outside.

    Under the null p-values are uniform, so each factor is 1 on average: a fair bet.

    Attributes:
        low: (J,) the intervals are low < p <= high.
        high: (J,).
        inside: (J,) logarithm of the factor inside.
        outside: (J,) and outside.
        stakes: (J,) what is put on each; they add up to 1.
    """

    low: Floats
    high: Floats
    inside: Floats
    outside: Floats
    stakes: Floats

    def log_factors(self, values: Floats) -> Floats:
        """What p-values (N,) do to each bet, (N, J)."""
        column = values[:, np.newaxis]
        hit = (column > self.low) & (column <= self.high)
        return np.where(hit, self.inside, self.outside)


def bets_on(
    shares: Floats, shifts: Mapping[float, float], directions: Sequence[int] = (1, -1)
) -> Bets:
    """Bets that the shares (E,) of "up to exit e", or of one exit between others, moved.

    `shifts` are absolute changes of a share with their stakes, which add up to 1.
    """
    edges = np.concatenate([[0.0], np.cumsum(shares)])
    edges[-1] = 1.0
    early = len(shares) - 1
    intervals = [(0.0, edges[exit + 1]) for exit in range(early)]
    intervals += [(edges[exit], edges[exit + 1]) for exit in range(1, early)]
    single = _SINGLE if early > 1 else 0.0
    weights = [(1 - single) / early] * early + [single / max(early - 1, 1)] * (early - 1)
    rows = [
        (low, high, direction * shift, weight * stake / len(directions))
        for (low, high), weight in zip(intervals, weights, strict=True)
        for shift, stake in shifts.items()
        for direction in directions
    ]
    low, high, shift, stakes = np.array(rows).T
    share = high - low
    moved = np.clip(share + shift, _KEPT * share, 1 - _KEPT * (1 - share))
    return Bets(low, high, np.log(moved / share), np.log((1 - moved) / (1 - share)), stakes)
