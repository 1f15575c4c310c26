"""Budgeted classification: the best answers on given rows for a mean cost.

A budget is kept on the rows that are given and says nothing of others: no promise comes with it.
It is kept but for rounding, and the order of the rows changes nothing.
The policies to choose from do not depend on the budget, so more budget is never less accurate, and
they include the geometric rule's, so none of those is better at the same budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.search import ALWAYS, Chosen, SearchRows, best_first, candidates
from offramp.errors import PlanError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score, find_score

RATIOS = (0.0, *np.geomspace(1e-3, 1e3, 399).tolist())
"""Of the geometric rule: shares of samples leaving at exits in turn are 1 : q : q^2 : ..."""

ROUNDING = 1e-9
"""How far over the budget, relative to it, a mean cost may be and count as the budget itself."""


@dataclass(frozen=True, eq=False)
class Bought:
    """A policy and what it gives on the rows it was chosen on.

    Attributes:
        mean_cost: Per sample, with the branches that run, in FLOPs or milliseconds.
        value: Accuracy from 0 to 1, or the mean absolute error.
    """

    policy: ExitPolicy
    mean_cost: float
    value: float


def budgeted(
    outputs: ExitOutputs,
    budget: float,
    *,
    score: Score | str = "max_softmax",
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> ExitPolicy:
    """Best policy found on these rows whose mean cost on them is at most `budget`.

    Never worse than `geometric`, and never worse than with less budget. `budget` is in FLOPs or
    milliseconds per sample and counts the branches that run.

    Raises:
        PlanError: The budget is under the cheapest exit's cost, or is not a positive number.
    """
    [point] = budget_curve(outputs, [budget], score=score, cost=cost, temperatures=temperatures)
    return point.policy


def budget_curve(
    outputs: ExitOutputs,
    budgets: Sequence[float],
    *,
    score: Score | str = "max_softmax",
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> tuple[Bought, ...]:
    """What `budgeted` chooses for each of several budgets, searched once.

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
    score: Score | str = "max_softmax",
    cost: CostUnit = "flops",
    temperatures: Sequence[float] | None = None,
) -> ExitPolicy:
    """MSDNet's rule (Huang et al. 2018, section 5): quotas of samples per exit fall or rise by q.

    The most expensive policy within the budget over a fixed grid of q, from q = 0, by which the
    first exit answers everything. Samples that tie with the last one of a quota leave with it.

    Raises:
        PlanError: The budget is under what any of these costs, or is not a positive number.
    """
    rows = _rows(outputs, score, cost, temperatures)
    return (
        _Menu(rows, list(dict.fromkeys(_geometric(rows.thinned())))).most_expensive(budget).policy
    )


class _Menu:
    """Thresholds to choose from, each judged on the rows."""

    def __init__(self, rows: SearchRows, every: Sequence[Chosen]) -> None:
        self.rows, self.every = rows, every
        judged = [rows.judge(thresholds) for thresholds in every]
        self.costs = np.array([cost for cost, _ in judged])
        self.values = np.array([value for _, value in judged])

    def best(self, budget: float) -> Bought:
        """Of those within the budget the best, and of these the cheapest."""
        self._check(budget)
        front = best_first(self.costs, self.rows.sign * self.values)
        within = self._within(budget)
        return self._point([place for place in front if within[place]][-1])

    def most_expensive(self, budget: float) -> Bought:
        """Of those within the budget the most expensive."""
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
            raise PlanError("the budget is NaN. Give the mean cost per sample that you can afford.")
        least, unit = float(self.costs.min()), self.rows.unit
        if self._within(budget).any():
            return
        alone = map(self._alone, range(self.rows.num_early + 1))
        raise PlanError(
            f"budget={budget:g} {unit} per sample cannot be kept: the least that an answer can "
            f"cost here is {least:.10g} {unit}. Give at least that, or cut the backbone earlier. "
            f"Cost of each exit alone: {', '.join(alone)}."
        )

    def _alone(self, exit: int) -> str:
        """What it costs to have this exit answer everything, or that it cannot."""
        rows, name = self.rows, self.rows.outputs.names[exit]
        if exit < rows.num_early and not (rows.scores[exit] >= ALWAYS).all():
            return f"{name} cannot (its score {rows.score.name!r} never lets some samples leave)"
        return f"{name} {rows.exit_cost(rows.alone(exit))[exit]:.10g}"


def _rows(
    outputs: ExitOutputs, score: Score | str, unit: CostUnit, temperatures: Sequence[float] | None
) -> SearchRows:
    fixed = None if temperatures is None else tuple(map(float, temperatures))
    return SearchRows.of(outputs, find_score(score), unit, fixed)


def _geometric(rows: SearchRows) -> list[Chosen]:
    return [_by_quotas(rows, ratio) for ratio in RATIOS]


def _by_quotas(rows: SearchRows, ratio: float) -> Chosen:
    """Thresholds by which the highest scores leave, exit by exit among the samples still there."""
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
