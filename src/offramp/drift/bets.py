"""Bets: how the test bets on p-values, with all tuned constants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tuning:
    """Constants of a watch, tuned with `benchmarks/drift.py` for shifts of 5 points.

    The bound on false alarms holds for any values; they only affect how quickly drift is detected.
    "Stakes" are shares of the initial wealth.

    Attributes:
        mix_part: Share of the false-alarm rate used to test the exit mix. Together with
            `disagreement_part`, only half of the rate is used, so that the number of false alarms
            counted over many streams hardly ever exceeds the rate; this increases the delay by a
            tenth.
        disagreement_part: Share of the false-alarm rate used to test disagreement; small, because
            there are few shadow answers.
        mix_shifts: Shifts of a share that are bet on, with their stakes. Most is on slightly less
            than 5 points, because answers from before the change dilute the shift.
        disagreement_shifts: The same for disagreement, whose share is small and changes abruptly.
        at_once: Stake on changes before the first answer; the rest is on later changes.
        block: Number of answers between two starts of new bets.
        scale: Number of answers after which the stakes on later changes begin to decrease.
        tail: Exponent of that decrease: a part (1 + n / scale) ** -tail of the stakes is left after
            n answers.
        single: Weight of bets on the share of a single middle exit; the rest is on cumulative
            shares ("up to this exit").
        kept: Smallest factor by which a bet scales a share or its complement, so that one
            unexpected answer cannot lose the whole bet.
        placing: One in this many reference samples is used only to place bets; the others are used
            for ranks.
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
    """J bets, each with one factor for p-values inside an interval and another for those outside.

    Under the null hypothesis p-values are uniform, so the mean factor is 1: every bet is fair.

    Attributes:
        low: (J,) lower ends of the intervals low < p <= high.
        high: (J,) upper ends.
        inside: (J,) logarithm of the factor inside the interval.
        outside: (J,) logarithm of the factor outside.
        stakes: (J,) initial stake of each bet; they sum to 1.
    """

    low: Floats
    high: Floats
    inside: Floats
    outside: Floats
    stakes: Floats

    def log_factors(self, values: Floats) -> Floats:
        """Logarithm of each bet's factor for p-values (N,), (N, J)."""
        column = values[:, np.newaxis]
        hit = (column > self.low) & (column <= self.high)
        return np.where(hit, self.inside, self.outside)


def bets_on(
    shares: Floats, shifts: Mapping[float, float], directions: Sequence[int] = (1, -1)
) -> Bets:
    """Make bets that the cumulative ("up to exit e") or single shares of exits (E,) have shifted.

    `shifts` maps absolute changes of a share to their stakes, which sum to 1.
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
    # A bet is fair because share * (moved / share) + (1 - share) * (1 - moved) / (1 - share) = 1.
    kept = TUNING.kept
    moved = np.clip(share + shift, kept * share, 1 - kept * (1 - share))
    return Bets(low, high, np.log(moved / share), np.log((1 - moved) / (1 - share)), stakes)
