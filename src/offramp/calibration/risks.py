"""Risks: what leaving early costs in quality, row by row, and what a sample of it shows.

A risk is the mean loss per row. Its evidence is one kind for each kind of loss, and a kind of its
own where rows depend on each other in clusters.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from offramp.calibration.bounds import betting_p, binomial_p, difference_p
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs
from offramp.policy.promise import Goal
from offramp.task import measure_of

_POWER = 0.84  # standard deviations that four of five samples stay under
_SAFE = 0.99  # of the most that can be bet before one cluster could ruin the bettor
_MOST_SAMPLES = 10_000_000  # a request that needs more counts as out of reach
_TIGHT = 1e-5  # how closely a bound is found, as a share of the losses' range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of each exit's answers, (E, N); those of the final exit are 0.

    Attributes:
        goal: A drop is 1 where only the final exit is right and -1 where only the early one is; a
            disagreement is 1; a rise is how much larger the absolute error is.
        values: (E, N).
        bound: What rises are clipped at; None for the others.
    """

    goal: Goal
    values: Floats
    bound: float | None = None

    @property
    def most(self) -> float:
        """The largest that a single loss can be."""
        return self.bound or 1.0


def losses_of(outputs: ExitOutputs, goal: Goal, loss_bound: float | None = None) -> Losses:
    """The losses that a goal speaks of; rises are clipped.

    Raises:
        PlanError: The goal does not fit the task.
    """
    _check(outputs, goal, loss_bound)
    if goal == "max_disagreement":
        predictions = outputs.predictions
        return Losses(goal, (predictions != predictions[-1]).astype(np.float64))
    values = measure_of(outputs.task).values(outputs.outputs, outputs.labels)
    if goal == "max_drop":
        return Losses(goal, values[-1] - values)
    bound = float(loss_bound or 1.0)
    return Losses(goal, np.clip(values - values[-1], -bound, bound), bound)


def _check(outputs: ExitOutputs, goal: Goal, loss_bound: float | None) -> None:
    regression = outputs.task == "regression"
    if regression != (goal == "max_rise"):
        fitting = "max_rise, in the labels' unit" if regression else "max_drop or max_disagreement"
        raise PlanError(f"{goal} does not fit a {outputs.task}. Use {fitting}, or give a budget.")
    if regression and loss_bound is None:
        raise PlanError(
            "max_rise needs loss_bound: the most that a single error may rise, in the labels' "
            "unit, such as the width of the labels' range. No number of samples rules out a rare, "
            "huge error, so larger rises count as this much, and the promise says so."
        )
    if loss_bound is not None and not (regression and 0 < loss_bound < np.inf):
        raise PlanError(
            f"loss_bound={loss_bound!r} is what single rises of a regression's error are clipped "
            "at: a positive number, in the labels' unit, with max_rise. Leave it out otherwise."
        )


class Evidence(Protocol):
    """What a sample of losses shows. A unit is a row, or a cluster of rows."""

    def __hash__(self) -> int:
        """Evidence does not change, so its bounds can be kept."""

    @property
    def num(self) -> int:
        """How many independent units."""

    @property
    def estimate(self) -> float:
        """Mean loss per row."""

    @property
    def most(self) -> float:
        """The largest loss of this kind."""

    @property
    def variance(self) -> float:
        """Of a unit's loss."""

    def p_value(self, limit: float, level: float) -> float:
        """For the hypothesis that the mean is above `limit`, to be tested at `level`."""

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` units like these would be certified in about four of five draws."""


@dataclass(frozen=True)
class Disagreements:
    """Losses that are 0 or 1: `count` of `num` are 1."""

    num: int
    count: int

    most = 1.0

    @property
    def estimate(self) -> float:
        """Mean loss per row."""
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
        """Mean loss per row."""
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
class ClusterSums:
    """Losses of any size, of rows in clusters that are independent of each other.

    Attributes:
        sums: (C,) loss of each cluster's rows together.
        sizes: (C,) rows of each.
        most: The largest loss of one row.
        bet: Chosen without these losses, as `bet_of` does.
        highest_bet: That cannot be ruined by one cluster.
    """

    sums: Floats
    sizes: Floats
    most: float
    bet: float
    highest_bet: float

    @property
    def num(self) -> int:
        """How many clusters."""
        return len(self.sums)

    @property
    def estimate(self) -> float:
        """Mean loss per row."""
        return math.fsum(self.sums) / float(self.sizes.sum()) if self.num else 0.0

    @property
    def variance(self) -> float:
        """Of a cluster's loss beyond its size's share."""
        return _spread(self.sums, self.sizes) ** 2

    def p_value(self, limit: float, level: float) -> float:
        """Betting, which holds whatever happens within clusters."""
        if not self.num or limit >= self.most:
            return 1.0 if not self.num else 0.0
        return betting_p(self.sums, self.sizes, limit, self.bet)

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` clusters like these would be certified in about four of five draws."""
        apart = (limit - self.estimate) * float(self.sizes.mean() if self.num else 1.0)
        spread = math.sqrt(self.variance)
        bet = min(self.highest_bet, _best_bet(spread, num, level))
        growth = bet * (apart - _POWER * spread / math.sqrt(num)) - bet**2 * spread**2 / 2
        return num * growth >= math.log(1 / level)


@dataclass(frozen=True, eq=False)
class Sample:
    """Losses of some rows.

    Attributes:
        losses: (N,).
        clusters: (N,) number of each row's cluster; None where every row is one by itself.
    """

    losses: Floats
    clusters: Ints | None

    def sums(self) -> tuple[Floats, Floats]:
        """Loss of each cluster's rows together, and its number of rows: (C,), (C,)."""
        if self.clusters is None:
            return self.losses, np.ones(len(self.losses))
        _, of = np.unique(self.clusters, return_inverse=True)
        order = np.lexsort((self.losses, of))  # sums that do not depend on the order of the rows
        sums = np.bincount(of[order], self.losses[order]).astype(np.float64)
        return sums, np.bincount(of).astype(np.float64)


def evidence_of(
    losses: Losses, tested: Sample, before: Sample, level: float, cluster_size: int
) -> Evidence:
    """What the tested losses show; those of the order rows, `before`, may set a bet.

    `cluster_size` is the most rows that a cluster of the population has. Where it is 1 and losses
    are -1, 0 or 1 the tests are exact; otherwise they are bets.
    """
    if losses.bound is not None or cluster_size > 1:
        sums, sizes = tested.sums()
        highest = _SAFE / (losses.most * cluster_size)
        bet = bet_of(before, len(sums), level, highest)
        return ClusterSums(sums, sizes, losses.most, bet, highest)
    num = len(tested.losses)
    plus, minus = int((tested.losses > 0).sum()), int((tested.losses < 0).sum())
    return Drops(num, plus, minus) if losses.goal == "max_drop" else Disagreements(num, plus)


def bet_of(before: Sample, num: int, level: float, highest: float) -> float:
    """The bet that is best where `num` clusters just suffice, from the spread of others.

    A bet under 1 / (the largest loss of a whole cluster) cannot be ruined: each factor of the
    wealth is then above 0. It does not depend on the limit, so a stricter limit never gains by
    another bet.
    """
    sums, sizes = before.sums()
    spread = _spread(sums, sizes) if len(sums) > 1 else 1 / highest
    return min(highest, _best_bet(spread, num, level)) if num else 0.0


def needed(evidence: Evidence, limit: float, level: float) -> float:
    """Units like these with which the limit would be certified; infinite where none suffice."""
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


@lru_cache(maxsize=512)  # the limits of a menu share their bounds
def upper_bound(evidence: Evidence, level: float) -> float:
    """The mean is above this, which is at least 0, with chance at most `level`.

    The test inverted: where its p-value, which falls with the limit, passes the level.
    """

    def above(limit: float) -> float:
        return math.log(max(evidence.p_value(limit, level), 1e-300) / level)

    most, close = evidence.most, _TIGHT * evidence.most
    low = max(0.0, evidence.estimate)
    high = min(most, low + most / 100)
    while high < most and above(high) > 0:
        low, high = high, min(most, 2 * high)
    if above(low) <= 0 or above(high) > 0:
        return low if above(low) <= 0 else most
    return float(min(most, brentq(above, low, high, xtol=close, rtol=1e-6) + 2 * close))


def _best_bet(spread: float, num: int, level: float) -> float:
    return math.sqrt(2 * math.log(1 / level) / num) / max(spread, 1e-9)


def _spread(sums: Floats, sizes: Floats) -> float:
    """Standard deviation of clusters' losses beyond what their sizes explain."""
    if not len(sums):
        return 0.0
    rest = sums - math.fsum(sums) / sizes.sum() * sizes
    return math.sqrt(math.fsum(rest * rest) / len(rest))


def _at_power(num: int, evidence: Evidence) -> int:
    """A sum of `num` such losses that about four of five samples do not exceed."""
    reach = _POWER * math.sqrt(num * max(evidence.variance, 0.0))
    return math.ceil(round(num * evidence.estimate + reach, 6))
