"""The oracle: the best exit for each sample, and the best choices within a share of the cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.record import Record, plain
from offramp.task import Measure

Floats = NDArray[np.float64]
SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class OracleCurve(Record):
    """The best possible mean value for each mean cost, linear between its points.

    The oracle knows the best exit for every sample and runs no other branch, so each cost is that
    of the exit's own path. No policy can do better at the same cost.

    Attributes:
        cost_share: (P,) mean cost as a share of the backbone's cost, ascending from the cheapest
            exit.
        value: (P,) mean accuracy or absolute error, each better than the previous one.
    """

    cost_share: Floats
    value: Floats
    measure: Measure

    def value_at(self, cost_share: float) -> float:
        """The best mean value for a mean cost, which must be at least that of the cheapest exit."""
        return float(np.interp(cost_share, self.cost_share, self.value))

    def cost_share_for(self, value: float) -> float:
        """The smallest mean cost for a value at least as good; the largest cost if none is."""
        sign = 1 if self.measure.higher_is_better else -1
        return float(np.interp(sign * value, sign * self.value, self.cost_share))

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"cost_share": plain(self.cost_share), "value": plain(self.value)}


def oracle_curve(values: Floats, costs: Floats, whole: float, measure: Measure) -> OracleCurve:
    """Compute the curve from values (E, N), own-path costs (E,) and the backbone's cost `whole`.

    All samples start at the cheapest exit. Then samples move to better exits, in order of
    decreasing gain per cost.
    """
    good = values if measure.higher_is_better else -values
    cheapest = np.where((costs == costs.min())[:, np.newaxis], good, -np.inf).argmax(axis=0)
    gains, extras = _moves(good, costs, cheapest)
    _, place = np.unique(-gains / extras, return_inverse=True)
    samples, every = values.shape[1], np.arange(values.shape[1])
    gained = np.bincount(place, gains) / samples
    spent = np.bincount(place, extras) / samples
    value = np.cumsum([good[cheapest, every].mean(), *gained])
    share = np.cumsum([costs.min(), *spent]) / whole
    return OracleCurve(share, value if measure.higher_is_better else -value, measure)


def _moves(good: Floats, costs: Floats, start: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Gains and costs of all moves, (M,) and (M,).

    Moves follow the upper hull of each sample's exits, so that the gain per cost of a sample
    decreases from move to move.
    """
    every, now = np.arange(good.shape[1]), start.copy()
    gains, extras = [], []
    for _ in range(len(costs) - 1):
        extra = costs[:, np.newaxis] - costs[now]
        gain = good - good[now, every]
        rate = np.divide(gain, extra, out=np.full_like(gain, -1.0), where=(extra > 0) & (gain > 0))
        following = rate.argmax(axis=0)
        moves = rate[following, every] > 0
        gains.append(gain[following, every][moves])
        extras.append(extra[following, every][moves])
        now[moves] = following[moves]
    return np.concatenate([np.empty(0), *gains]), np.concatenate([np.empty(0), *extras])


@dataclass(frozen=True)
class BudgetPoint(Record):
    """The best choices within a share of the backbone's cost, on the evaluated samples.

    Attributes:
        share: Allowed share of the cost of the backbone alone.
        exit: The best single exit whose own path fits, if it answers every sample and no other
            branch runs; None if none fits.
        value: Value of that exit.
        policy: The best policy whose mean cost fits, including the branches passed on the way.
        policy_value: Value of that policy.
        oracle: Value of the oracle; None below the cost of the cheapest exit.
    """

    share: float
    exit: str | None
    value: float | None
    policy: str | None
    policy_value: float | None
    oracle: float | None


Choice = tuple[float, float, str]
"""An exit or policy: its share of the backbone's cost, its value and its name."""


def budget_points(
    exits: Sequence[Choice], policies: Sequence[Choice], oracle: OracleCurve
) -> tuple[BudgetPoint, ...]:
    """One point each at 25, 50, 75 and 100 % of the backbone's cost."""
    return tuple(
        BudgetPoint(
            share,
            *_best(exits, share, oracle.measure),
            *_best(policies, share, oracle.measure),
            oracle.value_at(share) if share >= oracle.cost_share[0] else None,
        )
        for share in SHARES
    )


def _best(
    choices: Sequence[Choice], share: float, measure: Measure
) -> tuple[str | None, float | None]:
    """Name and value of the best choice within the share; of several, the cheapest."""
    within = sorted(choice for choice in choices if choice[0] <= share)
    if not within:
        return None, None
    best = max if measure.higher_is_better else min
    _, value, name = best(within, key=lambda choice: choice[1])
    return name, value
