"""Budgeted classification: the best policy on the given rows within a mean cost.

The budget holds for the given rows, up to rounding; there is no promise for other rows. The result
does not depend on the order of the rows. The candidate policies do not depend on the budget, so a
larger budget never gives a less accurate policy. They include those of the geometric rule, which is
therefore never better at the same budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.search import ALWAYS, Chosen, SearchRows, best_first, candidates
from offramp.errors import PlanError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score, score_for

RATIOS = (0.0, *np.geomspace(1e-3, 1e3, 399).tolist())
"""Values of q for the geometric rule: the exits answer shares of samples of 1 : q : q^2 : ..."""

ROUNDING = 1e-9
"""Relative excess over the budget that is attributed to rounding."""


@dataclass(frozen=True, eq=False)
class Bought:
    """A policy with its cost and value on the rows that it was chosen on.

    Attributes:
        mean_cost: Mean cost per sample, all branches that run included, in FLOPs or milliseconds.
        value: Accuracy (0 to 1) or mean absolute error.
    """

    policy: ExitPolicy
    mean_cost: float
    value: float


def budgeted(
    outputs: ExitOutputs,
    budget: float,
    *,
    score: Score | str | None = None,
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> ExitPolicy:
    """Find the best policy whose mean cost on these rows is at most `budget`.

    It is never worse than `geometric`, nor than the result for a smaller budget. `budget` is in
    FLOPs or milliseconds per sample and includes all branches that run.

    Raises:
        PlanError: The budget is under the cheapest exit's cost, or is not a positive number.
    """
    [point] = budget_curve(outputs, [budget], score=score, cost=cost, temperatures=temperatures)
    return point.policy


def budget_curve(
    outputs: ExitOutputs,
    budgets: Sequence[float],
    *,
    score: Score | str | None = None,
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> tuple[Bought, ...]:
    """Run `budgeted` for several budgets with a single search.

    Raises:
        PlanError: A budget is under the cheapest exit's cost, or is not a positive number.
    """
    rows = _rows(outputs, score, cost, temperatures)
    some = rows.thinned()
    alone = [rows.alone(exit) for exit in range(len(outputs.names))]
    starts = list(dict.fromkeys((*alone, *_geometric(some))))
    menu = _Menu(rows, list(dict.fromkeys((*starts, *candidates(some, starts)))))
    return tuple(menu.best(budget) for budget in budgets)


def geometric(
    outputs: ExitOutputs,
    budget: float,
    *,
    score: Score | str | None = None,
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> ExitPolicy:
    """MSDNet's rule (Huang et al. 2018, section 5): exits answer shares of 1 : q : q^2 : ...

    Returns the most expensive policy within the budget over a fixed grid of q; at q = 0 the first
    exit answers everything. Samples that tie with the last one of a quota leave with it.

    Raises:
        PlanError: The budget is below the cost of all these policies, or is not a positive number.
    """
    rows = _rows(outputs, score, cost, temperatures)
    return (
        _Menu(rows, list(dict.fromkeys(_geometric(rows.thinned())))).most_expensive(budget).policy
    )


class _Menu:
    """The candidate thresholds with their cost and value on the rows."""

    def __init__(self, rows: SearchRows, every: Sequence[Chosen]) -> None:
        self.rows, self.every = rows, every
        judged = [rows.judge(thresholds) for thresholds in every]
        self.costs = np.array([cost for cost, _ in judged])
        self.values = np.array([value for _, value in judged])

    def best(self, budget: float) -> Bought:
        """The best candidate within the budget; of several, the cheapest."""
        self._check(budget)
        front = best_first(self.costs, self.rows.sign * self.values)
        within = self._within(budget)
        return self._point([place for place in front if within[place]][-1])

    def most_expensive(self, budget: float) -> Bought:
        """The most expensive candidate within the budget."""
        self._check(budget)
        within = np.where(self._within(budget), self.costs, -np.inf)
        return self._point(int(within.argmax()))

    def _within(self, budget: float) -> NDArray[np.bool_]:
        within: NDArray[np.bool_] = self.costs <= budget * (1 + ROUNDING)
        return within

    def _point(self, place: int) -> Bought:
        return Bought(
            self.rows.policy(self.every[place]), float(self.costs[place]), float(self.values[place])
        )

    def _check(self, budget: float) -> None:
        if np.isnan(budget):
            raise PlanError("the budget is NaN. Give a mean cost per sample.")
        least, unit = float(self.costs.min()), self.rows.unit
        if self._within(budget).any():
            return
        alone = map(self._alone, range(self.rows.num_early + 1))
        raise PlanError(
            f"budget={budget:g} {unit} per sample is too small: the cheapest policy costs "
            f"{least:.10g} {unit}. Give at least that, or cut the backbone earlier. Cost of each "
            f"exit alone: {', '.join(alone)}."
        )

    def _alone(self, exit: int) -> str:
        """The cost if this exit answers everything, or why it cannot."""
        rows, name = self.rows, self.rows.outputs.names[exit]
        if exit < rows.num_early and not (rows.scores[exit] >= ALWAYS).all():
            return (
                f"{name} cannot answer all samples (the score {rows.score.name!r} of some is "
                "never high enough)"
            )
        return f"{name} {rows.exit_cost(rows.alone(exit))[exit]:.10g}"


def _rows(
    outputs: ExitOutputs,
    score: Score | str | None,
    unit: CostUnit,
    temperatures: Sequence[float] | None,
) -> SearchRows:
    fixed = None if temperatures is None else tuple(map(float, temperatures))
    return SearchRows.of(outputs, score_for(outputs, score), unit, fixed)


def _geometric(rows: SearchRows) -> list[Chosen]:
    return [_by_quotas(rows, ratio) for ratio in RATIOS]


def _by_quotas(rows: SearchRows, ratio: float) -> Chosen:
    """Thresholds that let each exit answer its quota of samples, highest scores first."""
    powers = ratio ** np.arange(rows.num_early + 1)
    count = rows.worth.shape[1]
    quotas = np.floor(count * powers / powers.sum()).astype(int)
    if quotas[0] == count:
        return rows.alone(0)
    there = np.ones(count, bool)
    thresholds: list[float | None] = []
    for exit, order in enumerate(rows.order):
        waiting = order[there[order] & np.isfinite(rows.scores[exit, order])]
        last = min(quotas[exit], len(waiting)) - 1
        thresholds.append(float(rows.scores[exit, waiting[last]]) if last >= 0 else None)
        if last >= 0:
            there &= rows.scores[exit] < rows.scores[exit, waiting[last]]
    return tuple(thresholds)
