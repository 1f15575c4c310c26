"""Bets: on which p-values, and how much, if a share has moved; and all numbers that were tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tuning:
    """How a watch divides its money; tuned by `benchmarks/drift.py` for shifts of 5 points.

    The promise on false alarms holds for any of these numbers; they decide how soon drift is found.

    Attributes:
        mix_part: Of the rate of false alarms, what the exit mix is tested at. With the next one
            half of the rate is left, so that a count over many streams, which varies, hardly ever
            exceeds the rate; that costs a tenth of the delay.
        disagreement_part: What disagreement is tested at; little, as shadow answers are few.
        mix_shifts: Shifts of a share that bets expect, with their stakes; most on about 5 points,
            a bit less than that since a stream before its change dilutes it.
        disagreement_shifts: The same for disagreement, where a share is small and jumps.
        at_once: Stake on a change before the first answer; the rest starts later.
        block: Answers between two times at which bets start.
        scale: Number of answers after which the stake that is still to start begins to thin out.
        tail: How slowly it does: the part left after n answers is (1 + n / scale) ** -tail.
        single: Weight of bets on a single exit between others; the rest is on "up to this exit".
        kept: Least part of a share, and of its complement, that a bet leaves, or one surprise
            would cost it everything.
        placing: One in this number of reference samples only places bets; the others give ranks.
    """

    mix_part: float = 0.45
    disagreement_part: float = 0.05
    mix_shifts: Mapping[float, float] = field(
        default_factory=lambda: MappingProxyType({0.02: 0.05, 0.045: 0.7, 0.12: 0.25})
    )
    disagreement_shifts: Mapping[float, float] = field(
        default_factory=lambda: MappingProxyType({0.01: 0.4, 0.03: 0.4, 0.1: 0.2})
    )
    at_once: float = 0.7
    block: int = 100
    scale: float = 10_000.0
    tail: float = 0.5
    single: float = 0.5
    kept: float = 0.25
    placing: int = 10


TUNING = Tuning()


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
    single = TUNING.single if early > 1 else 0.0
    weights = [(1 - single) / early] * early + [single / max(early - 1, 1)] * (early - 1)
    rows = [
        (low, high, direction * shift, weight * stake / len(directions))
        for (low, high), weight in zip(intervals, weights, strict=True)
        for shift, stake in shifts.items()
        for direction in directions
    ]
    low, high, shift, stakes = np.array(rows).T
    share = high - low
    # A bet is fair as share * (moved / share) + (1 - share) * (1 - moved) / (1 - share) is 1.
    kept = TUNING.kept
    moved = np.clip(share + shift, kept * share, 1 - kept * (1 - share))
    return Bets(low, high, np.log(moved / share), np.log((1 - moved) / (1 - share)), stakes)
