"""Evidence: what a sample of losses says about their mean, one kind for each kind of loss."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.bounds import betting_p, binomial_p, difference_p
from offramp.policy.promise import Goal

_POWER = 0.84  # standard deviations that four of five samples stay under
_MOST_BET = 1.98  # under 1 / (1 - limit) = 2, the most that can be bet on values in [0, 1] here
_MOST_SAMPLES = 10_000_000  # who needs more is told that none suffice
_TIGHT = 1e-5  # how closely a bound is found, as a share of the losses' range


class Evidence(Protocol):
    """What N losses show."""

    @property
    def num(self) -> int:
        """How many losses."""

    @property
    def estimate(self) -> float:
        """Mean loss."""

    @property
    def most(self) -> float:
        """The largest loss of this kind."""

    @property
    def variance(self) -> float:
        """Of the losses."""

    def p_value(self, limit: float, level: float) -> float:
        """For the hypothesis that the mean is above `limit`, to be tested at `level`."""

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified in about four of five draws."""


@dataclass(frozen=True)
class Disagreements:
    """Losses that are 0 or 1: `count` of `num` are 1."""

    num: int
    count: int

    most = 1.0

    @property
    def estimate(self) -> float:
        """Mean loss."""
        return self.count / self.num if self.num else 0.0

    def p_value(self, limit: float, level: float) -> float:
        """Exact binomial."""
        return binomial_p(self.count, self.num, limit) if self.num else 1.0

    @property
    def variance(self) -> float:
        """Of the losses."""
        return self.estimate * (1 - self.estimate)

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified in about four of five draws."""
        count = _at_power(num, self)
        return Disagreements(num, count).p_value(limit, level) <= level


@dataclass(frozen=True)
class Drops:
    """Losses in {-1, 0, 1}: of `num`, `plus` are 1 and `minus` are -1."""

    num: int
    plus: int
    minus: int

    most = 1.0

    @property
    def estimate(self) -> float:
        """Mean loss."""
        return (self.plus - self.minus) / self.num if self.num else 0.0

    def p_value(self, limit: float, level: float) -> float:
        """Exact trinomial, over all shares of losses that are not 0."""
        return difference_p(self.plus, self.minus, self.num, limit, level)

    @property
    def variance(self) -> float:
        """Of the losses."""
        return self._differ - self.estimate**2

    @property
    def _differ(self) -> float:
        return (self.plus + self.minus) / self.num if self.num else 0.0

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified in about four of five draws."""
        total = _at_power(num, self)
        both = max(abs(total), math.ceil(num * self._differ))
        grown = Drops(num, (both + total + 1) // 2, (both - total) // 2)
        return grown.p_value(limit, level) <= level


@dataclass(frozen=True, eq=False)
class Rises:
    """Losses that are numbers from -bound to bound.

    Attributes:
        losses: (N,).
        bet: Chosen without these losses, as `bet_of` does.
    """

    losses: NDArray[np.float64]
    bound: float
    bet: float

    @property
    def num(self) -> int:
        """How many losses."""
        return len(self.losses)

    @property
    def estimate(self) -> float:
        """Mean loss."""
        return float(np.sort(self.losses).mean()) if self.num else 0.0

    @property
    def most(self) -> float:
        """The largest loss of this kind."""
        return self.bound

    def p_value(self, limit: float, level: float) -> float:
        """Betting; losses and limit are moved to [0, 1]."""
        if not self.num or limit >= self.bound:
            return 1.0 if not self.num else 0.0
        return betting_p(
            0.5 + self.losses / (2 * self.bound), 0.5 + limit / (2 * self.bound), self.bet
        )

    @property
    def variance(self) -> float:
        """Of the losses."""
        return float(np.sort(self.losses).var()) if self.num else 0.0

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified in about four of five draws."""
        apart, spread = limit - self.estimate, math.sqrt(self.variance)
        apart, spread = (each / (2 * self.bound) for each in (apart, spread))
        bet = _bet(spread, num, level)
        growth = bet * (apart - _POWER * spread / math.sqrt(num)) - bet**2 * spread**2 / 2
        return num * growth >= math.log(1 / level)


def evidence_of(
    goal: Goal,
    losses: NDArray[np.float64],
    before: NDArray[np.float64],
    level: float,
    bound: float | None,
) -> Evidence:
    """What the tested losses (N,) show; those of the order part, `before`, may set a bet."""
    num = len(losses)
    if bound is not None:
        return Rises(losses, bound, bet_of(before, num, level, bound))
    plus, minus = int((losses > 0).sum()), int((losses < 0).sum())
    return Drops(num, plus, minus) if goal == "max_drop" else Disagreements(num, plus)


def bet_of(before: NDArray[np.float64], num: int, level: float, bound: float) -> float:
    """The bet that is best where `num` losses just suffice, from the spread of others.

    It does not depend on the limit, so a stricter limit never gains by another bet.
    """
    spread = float(np.sort(before).std()) / (2 * bound) if len(before) > 1 else 0.5
    return _bet(spread, num, level) if num else 0.0


def needed(evidence: Evidence, limit: float, level: float) -> float:
    """Losses like these with which the limit would be certified; infinite where none suffice."""
    if evidence.estimate >= limit:
        return math.inf
    high = 1
    while not evidence.enough(high, limit, level):
        high *= 2
        if high > _MOST_SAMPLES:
            return math.inf
    low = high // 2
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if evidence.enough(middle, limit, level) else (middle, high)
    return high


def roughly_needed(evidence: Evidence, limit: float, level: float) -> float:
    """The same by a normal approximation, to compare candidates by."""
    apart, z = limit - evidence.estimate, NormalDist().inv_cdf(1 - level) + _POWER
    if apart <= 0:
        return math.inf
    return max(evidence.variance * (z / apart) ** 2, math.log(1 / level) / apart)


def upper_bound(evidence: Evidence, level: float) -> float:
    """The mean is above this, which is at least 0, with chance at most `level`.

    The test inverted, by bisection.
    """
    low = max(0.0, evidence.estimate)
    high = min(evidence.most, low + evidence.most / 100)
    while high < evidence.most and evidence.p_value(high, level) > level:
        low, high = high, min(evidence.most, 2 * high)
    while high - low > _TIGHT * evidence.most:
        middle = (low + high) / 2
        low, high = (low, middle) if evidence.p_value(middle, level) <= level else (middle, high)
    return high


def _bet(spread: float, num: int, level: float) -> float:
    return min(_MOST_BET, math.sqrt(2 * math.log(1 / level) / num) / max(spread, 1e-9))


def _at_power(num: int, evidence: Evidence) -> int:
    """A sum of `num` such losses that about four of five samples do not exceed."""
    reach = _POWER * math.sqrt(num * max(evidence.variance, 0.0))
    return math.ceil(round(num * evidence.estimate + reach, 6))
