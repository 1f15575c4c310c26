"""Risks: the loss in quality from leaving early, per row, and statistical evidence about its mean.

A risk is the mean loss per row. There is one class of evidence per kind of loss, and another one
for rows that depend on each other within clusters.
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

_POWER = 0.84  # standard normal quantile of 80 %
_SAFE = 0.99  # share of the largest bet that one cluster cannot ruin
_MOST_SAMPLES = 10_000_000  # a request that needs more is reported as impossible
_TIGHT = 1e-5  # precision of a bound, as a share of the range of losses

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Losses:
    """Losses of each exit's answers; those of the final exit are 0.

    Attributes:
        goal: Defines the loss. A drop is 1 if only the final exit is right and -1 if only the early
            one is; a disagreement is 1; a rise is the increase in absolute error.
        values: (E, N) losses.
        bound: Value at which rises are clipped; None for the other goals.
    """

    goal: Goal
    values: Floats
    bound: float | None = None

    @property
    def most(self) -> float:
        """The largest possible loss of one row."""
        return self.bound or 1.0


def losses_of(outputs: ExitOutputs, goal: Goal, loss_bound: float | None = None) -> Losses:
    """Compute the losses that define a goal; rises are clipped.

    Raises:
        PlanError: The goal does not suit the task.
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
        fitting = (
            "max_rise, in the unit of the labels" if regression else "max_drop or max_disagreement"
        )
        raise PlanError(
            f"{goal} does not apply to a {outputs.task}. Use {fitting}, or give a budget."
        )
    if regression and loss_bound is None:
        raise PlanError(
            "max_rise needs loss_bound (--loss-bound), the value at which the rise in error of a "
            "single sample is clipped, in the unit of the labels. The width of the labels' range, "
            f"here {np.ptp(outputs.labels):.4g}, is a good choice. Without clipping, no number of "
            "samples can rule out a rare, huge error; the promise states the bound."
        )
    if loss_bound is not None and not (regression and 0 < loss_bound < np.inf):
        raise PlanError(
            f"loss_bound={loss_bound!r} is wrong: it must be a positive number in the unit of the "
            "labels, and is used only with max_rise in a regression. Otherwise leave it out."
        )


class Evidence(Protocol):
    """What a sample of losses shows about their mean. A unit is a row or a cluster of rows."""

    def __hash__(self) -> int:
        """Evidence is immutable and hashable, so that its bounds can be cached."""

    @property
    def num(self) -> int:
        """Number of independent units."""

    @property
    def estimate(self) -> float:
        """Mean loss per row."""

    @property
    def most(self) -> float:
        """The largest possible loss of this kind."""

    @property
    def variance(self) -> float:
        """Variance of the loss of a unit."""

    def p_value(self, limit: float, level: float) -> float:
        """p-value of the hypothesis that the mean exceeds `limit`, to be compared with `level`."""

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` units like these would be certified with a probability of about 80 %."""


@dataclass(frozen=True)
class Disagreements:
    """Losses of 0 or 1: `count` of `num` are 1."""

    num: int
    count: int

    most = 1.0

    @property
    def estimate(self) -> float:
        """Mean loss per row."""
        return self.count / self.num if self.num else 0.0

    def p_value(self, limit: float, level: float) -> float:
        """Exact binomial test."""
        return binomial_p(self.count, self.num, limit) if self.num else 1.0

    @property
    def variance(self) -> float:
        """Variance of the losses."""
        return self.estimate * (1 - self.estimate)

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified with a probability of about 80 %."""
        count = _at_power(num, self)
        return Disagreements(num, count).p_value(limit, level) <= level


@dataclass(frozen=True)
class Drops:
    """Losses of -1, 0 or 1: of `num`, `plus` are 1 and `minus` are -1."""

    num: int
    plus: int
    minus: int

    most = 1.0

    @property
    def estimate(self) -> float:
        """Mean loss per row."""
        return (self.plus - self.minus) / self.num if self.num else 0.0

    def p_value(self, limit: float, level: float) -> float:
        """Exact trinomial test, maximised over the share of losses that are not 0."""
        return difference_p(self.plus, self.minus, self.num, limit, level)

    @property
    def variance(self) -> float:
        """Variance of the losses."""
        return self._differ - self.estimate**2

    @property
    def _differ(self) -> float:
        return (self.plus + self.minus) / self.num if self.num else 0.0

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` losses like these would be certified with a probability of about 80 %."""
        total = _at_power(num, self)
        both = max(abs(total), math.ceil(num * self._differ))
        grown = Drops(num, (both + total + 1) // 2, (both - total) // 2)
        return grown.p_value(limit, level) <= level


@dataclass(frozen=True, eq=False)
class ClusterSums:
    """Losses of any size, for rows in independent clusters.

    Attributes:
        sums: (C,) total loss of each cluster.
        sizes: (C,) number of rows of each cluster.
        most: The largest possible loss of one row.
        bet: The bet, chosen without these losses; see `bet_of`.
        highest_bet: The largest bet that a single cluster cannot ruin.
    """

    sums: Floats
    sizes: Floats
    most: float
    bet: float
    highest_bet: float

    @property
    def num(self) -> int:
        """Number of clusters."""
        return len(self.sums)

    @property
    def estimate(self) -> float:
        """Mean loss per row."""
        return math.fsum(self.sums) / float(self.sizes.sum()) if self.num else 0.0

    @property
    def variance(self) -> float:
        """Variance of a cluster's loss after subtracting its size times the mean loss."""
        return _spread(self.sums, self.sizes) ** 2

    def p_value(self, limit: float, level: float) -> float:
        """p-value by betting, valid for any dependence within clusters."""
        if not self.num or limit >= self.most:
            return 1.0 if not self.num else 0.0
        return betting_p(self.sums, self.sizes, limit, self.bet)

    def enough(self, num: int, limit: float, level: float) -> bool:
        """Whether `num` clusters like these would be certified with a probability of about 80 %."""
        apart = (limit - self.estimate) * float(self.sizes.mean() if self.num else 1.0)
        spread = math.sqrt(self.variance)
        bet = min(self.highest_bet, _best_bet(spread, num, level))
        gain = bet * (apart - _POWER * spread / math.sqrt(num))
        growth = math.log1p(gain) - bet**2 * spread**2 / 2 if gain > 0 else 0.0
        return num * growth >= math.log(1 / level)


@dataclass(frozen=True, eq=False)
class Sample:
    """The losses of some rows.

    Attributes:
        losses: (N,) losses.
        clusters: (N,) index of each row's cluster; None if all rows are independent.
    """

    losses: Floats
    clusters: Ints | None

    def sums(self) -> tuple[Floats, Floats]:
        """Total loss and number of rows of each cluster: (C,), (C,)."""
        if self.clusters is None:
            return self.losses, np.ones(len(self.losses))
        _, of = np.unique(self.clusters, return_inverse=True)
        order = np.lexsort((self.losses, of))  # makes the sums independent of the order of the rows
        sums = np.bincount(of[order], self.losses[order]).astype(np.float64)
        return sums, np.bincount(of).astype(np.float64)


def evidence_of(
    losses: Losses, tested: Sample, before: Sample, level: float, cluster_size: int
) -> Evidence:
    """Build the evidence from the test losses; the losses `before`, of the order rows, set the bet.

    `cluster_size` is the largest number of rows in a cluster of the population. If it is 1 and the
    losses are -1, 0 or 1, the tests are exact; otherwise they are by betting.
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
    """Choose the best bet if `num` clusters are just enough, given the spread of the order rows.

    A bet below 1 / (the largest loss of a whole cluster) cannot be ruined, since every factor of
    the wealth is positive. The bet does not depend on the limit, so a stricter limit can never
    benefit from a better bet.
    """
    sums, sizes = before.sums()
    spread = _spread(sums, sizes) if len(sums) > 1 else 1 / highest
    return min(highest, _best_bet(spread, num, level)) if num else 0.0


def needed(evidence: Evidence, limit: float, level: float) -> float:
    """Number of units like these needed to certify the limit; infinite if no number is enough."""
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


@lru_cache(maxsize=512)  # all limits of a menu share the same bounds
def upper_bound(evidence: Evidence, level: float) -> float:
    """Upper confidence bound (>= 0): the mean exceeds it with probability at most `level`.

    This inverts the test: the bound is the limit at which the p-value, which decreases in the
    limit, reaches the level.
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
    """Standard deviation of the clusters' losses after subtracting size times mean loss."""
    if not len(sums):
        return 0.0
    rest = sums - math.fsum(sums) / sizes.sum() * sizes
    return math.sqrt(math.fsum(rest * rest) / len(rest))


def _at_power(num: int, evidence: Evidence) -> int:
    """The 80 % quantile of the sum of `num` such losses, approximately."""
    reach = _POWER * math.sqrt(num * max(evidence.variance, 0.0))
    return math.ceil(round(num * evidence.estimate + reach, 6))
