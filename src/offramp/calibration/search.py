"""Search: thresholds that trade accuracy against cost on labelled rows, for any budget.

For several prices of cost, coordinate ascent maximises `worth - price * cost`: each step sets one
exit to the best of all its possible thresholds, or disables it. All thresholds visited become
candidates, which also covers the points between two prices. Besides the best candidate so far,
ascents start from a fine grid over each pair of exits, because changing one exit at a time can get
stuck.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.decision import Thresholds, leaving
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score
from offramp.task import measure_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Chosen = tuple[float | None, ...]

ALWAYS = -sys.float_info.max
"""A threshold that every score reaches except minus infinity, which stands for "never fires"."""

NUM_PRICES = 16
MAX_ROUNDS = 4
KEPT_PER_SWEEP = 48
MAX_CANDIDATES = 1000
MOST_ROWS = 20_000
GRID, GRID_OF_MANY = 600, 250  # thresholds per side for two early exits, and for more


@dataclass(frozen=True, eq=False)
class SearchRows:
    """The rows to search on, sorted by their values.

    Sorting makes the result independent of the order of the rows, rounding included.

    Attributes:
        scores: (E - 1, N) scores of the early exits.
        values: (E, N) measure of each exit's answer: 1 if right and 0 if wrong, or the absolute
            error.
        temperatures: One per early exit, dividing its logits before scoring; None for no scaling.
    """

    scores: Floats
    values: Floats
    outputs: ExitOutputs
    score: Score
    unit: CostUnit
    temperatures: tuple[float, ...] | None

    @classmethod
    def of(
        cls,
        outputs: ExitOutputs,
        score: Score,
        unit: CostUnit = "flops",
        temperatures: tuple[float, ...] | None = None,
    ) -> Self:
        """Take all rows of the outputs."""
        scores = score.of(outputs, temperatures)
        values = measure_of(outputs.task).values(outputs.outputs, outputs.labels)
        both = np.concatenate([scores, values])
        both = np.take(both, np.lexsort(both), axis=1)
        early = len(scores)
        return cls(both[:early], both[early:], outputs, score, unit, temperatures)

    def thinned(self) -> "SearchRows":
        """At most MOST_ROWS rows, evenly spaced in sorted order, to search thresholds on."""
        num = self.values.shape[1]
        if num <= MOST_ROWS:
            return self
        some = np.linspace(0, num - 1, MOST_ROWS).astype(np.int64)
        return replace(self, scores=self.scores[:, some], values=self.values[:, some])

    @cached_property
    def order(self) -> Ints:
        """Row indices by decreasing score at each early exit, (E - 1, N); ties in sorted order."""
        return np.argsort(-self.scores, axis=1, kind="stable")

    @cached_property
    def worth(self) -> Floats:
        """`values`, negated if necessary so that larger is better."""
        return self.values if self.sign > 0 else -self.values

    @property
    def sign(self) -> float:
        """1 where a larger value is better, otherwise -1."""
        return 1.0 if measure_of(self.outputs.task).higher_is_better else -1.0

    @property
    def num_early(self) -> int:
        """Number of exits that have a threshold."""
        return len(self.outputs.names) - 1

    def policy(self, thresholds: Thresholds) -> ExitPolicy:
        """The policy with these thresholds, without a promise."""
        return ExitPolicy(
            score=self.score,
            thresholds=tuple(thresholds),
            names=tuple(self.outputs.names),
            temperatures=self.temperatures,
            source=self.outputs.source,
        )

    def alone(self, exit: int) -> tuple[float | None, ...]:
        """Thresholds with which this exit answers every row and no other early exit is enabled."""
        thresholds: list[float | None] = [None] * self.num_early
        if exit < self.num_early:
            thresholds[exit] = ALWAYS
        return tuple(thresholds)

    def exit_cost(self, thresholds: Thresholds) -> Floats:
        """Cost of leaving at each exit, (E,), with the branches that run under these thresholds."""
        enabled = tuple(threshold is not None for threshold in thresholds)
        if enabled not in self._exit_costs:
            policy = self.policy([0.0 if on else None for on in enabled])
            self._exit_costs[enabled] = policy.exit_cost(self.outputs, self.unit)
        return self._exit_costs[enabled]

    @cached_property
    def _exit_costs(self) -> dict[tuple[bool, ...], Floats]:
        return {}

    def judge(self, thresholds: Thresholds) -> tuple[float, float]:
        """Mean cost and mean value of the policy with these thresholds, up to rounding."""
        leaves = leaving(self.scores, thresholds)
        value = self.values[leaves, np.arange(len(leaves))].mean()
        numbers = np.bincount(leaves, minlength=self.num_early + 1)
        return float(_mean_cost(numbers, self.exit_cost(thresholds))), float(value)

    def sweep(self, thresholds: Thresholds, exit: int) -> tuple[Floats, Floats, Floats]:
        """Try every threshold of one exit, keeping the others: thresholds, mean costs, mean worths.

        Each has shape (T,), by descending threshold. Only thresholds that let at least one row
        leave are included, so T may be 0. Exact up to rounding.
        """
        costs = self.exit_cost([*thresholds[:exit], 0.0, *thresholds[exit + 1 :]])
        leaves = leaving(self.scores, [*thresholds[:exit], None, *thresholds[exit + 1 :]])
        worth = self.worth[leaves, np.arange(len(leaves))]
        rows = self.order[exit]
        rows = rows[leaves[rows] > exit]
        scores = self.scores[exit, rows]
        gained = np.cumsum(self.worth[exit, rows] - worth[rows])
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
        ends = ends[np.isfinite(scores[ends])]
        numbers = np.tile(np.bincount(leaves, minlength=len(costs)), (len(ends), 1))
        for later in range(exit + 1, len(costs)):
            numbers[:, later] -= np.cumsum(leaves[rows] == later)[ends]
        numbers[:, exit] = ends + 1
        return scores[ends], _mean_cost(numbers, costs), (worth.sum() + gained[ends]) / len(leaves)


def _mean_cost(numbers: NDArray[np.int64], costs: Floats) -> Floats:
    """Mean cost (...,) from the number of rows per exit (..., E), whatever the order of rows."""
    return np.asarray((numbers * costs).sum(axis=-1) / numbers.sum(axis=-1), np.float64)


def best_first(costs: Sequence[float] | Floats, worths: Sequence[float] | Floats) -> list[int]:
    """Indices of the Pareto-optimal points (none is as good at the same or less cost), by cost."""
    costs, worths = np.asarray(costs, np.float64), np.asarray(worths, np.float64)
    order = np.lexsort((-worths, costs))
    highest = np.maximum.accumulate(worths[order])
    fresh = np.append(True, highest[1:] > highest[:-1])[: len(order)]
    kept: list[int] = order[fresh].tolist()
    return kept


def candidates(rows: SearchRows, starts: Sequence[Chosen]) -> list[Chosen]:
    """Find Pareto-optimal thresholds by increasing cost; `starts` are further starting points.

    Returns at most MAX_CANDIDATES of them, evenly spaced.
    """
    grids = [each for exit in range(rows.num_early) for each in _single_front(rows, exit)]
    grids += [each for pair in _pairs(rows.num_early) for each in _grid_front(rows, *pair)]
    met = {start: _cost_and_worth(rows, start) for start in (*starts, *grids)}
    for price in _prices(rows):
        best = max(met, key=lambda thresholds: met[thresholds][1] - price * met[thresholds][0])
        for start in dict.fromkeys((best, rows.alone(rows.num_early))):
            for thresholds, cost, worth in _climb(rows, start, price):
                met[thresholds] = (cost, worth)
    every = list(met)
    front = best_first([met[each][0] for each in every], [met[each][1] for each in every])
    return [every[front[place]] for place in _spread(len(front), MAX_CANDIDATES)]


def _climb(rows: SearchRows, start: Chosen, price: float) -> Iterator[tuple[Chosen, float, float]]:
    """Yield all thresholds visited in one ascent, with mean cost and worth."""
    here, high = start, -np.inf
    for _ in range(MAX_ROUNDS):
        before = high
        for exit in range(rows.num_early):
            found = list(_neighbours(rows, here, exit, price))
            yield from found
            here, cost, worth = max(found, key=lambda each: each[2] - price * each[1])
            high = worth - price * cost
        if high <= before:
            return


def _neighbours(
    rows: SearchRows, here: Chosen, exit: int, price: float
) -> Iterator[tuple[Chosen, float, float]]:
    """Yield the exit disabled, its Pareto-optimal thresholds and the best one at this price."""
    off = (*here[:exit], None, *here[exit + 1 :])
    yield (off, *_cost_and_worth(rows, off))
    thresholds, costs, worths = rows.sweep(here, exit)
    if not len(thresholds):
        return
    front = best_first(costs, worths)
    chosen = {front[place] for place in _spread(len(front), KEPT_PER_SWEEP)}
    chosen.add(int(np.argmax(worths - price * costs)))
    for place in sorted(chosen):
        changed = (*here[:exit], float(thresholds[place]), *here[exit + 1 :])
        yield changed, float(costs[place]), float(worths[place])


def _cost_and_worth(rows: SearchRows, thresholds: Chosen) -> tuple[float, float]:
    cost, value = rows.judge(thresholds)
    return cost, rows.sign * value


def _prices(rows: SearchRows) -> Floats:
    """Prices of cost, around the gain in worth from an early exit to the last one."""
    gain = np.abs(rows.worth - rows.worth[-1]).mean(axis=1).max()
    cost = rows.outputs.own_path_cost(rows.unit).max()
    scale = (gain or 1.0) / (cost or 1.0)
    return np.asarray(scale * np.geomspace(0.003, 30.0, NUM_PRICES), np.float64)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spaced, including the first and the last."""
    places: list[int] = (
        np.unique(np.linspace(0, count - 1, min(count, most)).round()).astype(int).tolist()
    )
    return places


def _pairs(early: int) -> Iterator[tuple[int, int]]:
    """Pairs of exits for the grid search; if there are many exits, only pairs of close ones."""
    apart = early if early <= 6 else 2
    return (pair for pair in combinations(range(early), 2) if pair[1] - pair[0] <= apart)


def _single_front(rows: SearchRows, exit: int) -> Iterator[Chosen]:
    """The Pareto-optimal thresholds of one exit, all others disabled."""
    none = rows.alone(rows.num_early)
    thresholds, costs, worths = rows.sweep(none, exit)
    front = best_first(costs, worths)
    for place in _spread(len(front), MAX_CANDIDATES if rows.num_early <= 2 else KEPT_PER_SWEEP):
        yield (*none[:exit], float(thresholds[front[place]]), *none[exit + 1 :])


def _grid_front(rows: SearchRows, one: int, two: int) -> list[Chosen]:
    """The Pareto-optimal points of a grid of thresholds of two exits, all others disabled.

    A row leaves at `one` if its score reaches the threshold there, otherwise at `two` if it reaches
    that one. The sums over rows for all pairs of thresholds are therefore sums over rectangles,
    which cumulative sums give at once.
    """
    side = GRID if rows.num_early == 2 else GRID_OF_MANY
    thresholds = [_grid_thresholds(rows.scores[exit], side) for exit in (one, two)]
    shape = (len(thresholds[0]), len(thresholds[1]))
    if not min(shape):
        return []
    first, second = (
        np.searchsorted(-falling, -rows.scores[exit], side="left")
        for falling, exit in zip(thresholds, (one, two), strict=True)
    )
    last = rows.worth[-1]
    at_one = _cumulated(first, rows.worth[one] - last, shape[0])
    both = _rectangles(first, second, rows.worth[two] - last, shape)
    num_one = _cumulated(first, None, shape[0])
    num_both = _rectangles(first, second, None, shape)
    at_two, num_two = both[-1] - both[:-1], num_both[-1] - num_both[:-1]
    worth = last.sum() + at_one[:, np.newaxis] + at_two
    on: list[float | None] = [None] * rows.num_early
    on[one] = on[two] = 0.0
    costs = rows.exit_cost(on)
    num = len(last)
    spent = num * costs[-1] + (num_one * (costs[one] - costs[-1]))[:, np.newaxis]
    spent = spent + num_two * (costs[two] - costs[-1])
    front = best_first(spent.ravel(), worth.ravel())
    found = []
    for place in _spread(len(front), MAX_CANDIDATES if rows.num_early == 2 else KEPT_PER_SWEEP):
        row, column = np.unravel_index(front[place], shape)
        on[one], on[two] = float(thresholds[0][row]), float(thresholds[1][column])
        found.append(tuple(on))
    return found


def _grid_thresholds(scores: Floats, most: int) -> Floats:
    """Quantiles of the scores in descending order, at most `most`."""
    falling = np.sort(scores[np.isfinite(scores)])[::-1]
    return np.unique(falling[_spread(len(falling), most)])[::-1] if len(falling) else falling


def _cumulated(first: Ints, values: Floats | None, size: int) -> Floats:
    """Sums over the rows that have left at each threshold, (size,)."""
    return np.bincount(first, values, minlength=size + 1)[:size].cumsum().astype(np.float64)


def _rectangles(first: Ints, second: Ints, values: Floats | None, shape: tuple[int, int]) -> Floats:
    """Sums over rows that reach each pair of thresholds; the last row ignores `first`."""
    wide = (shape[0] + 1, shape[1] + 1)
    flat = np.bincount(first * wide[1] + second, values, minlength=wide[0] * wide[1])
    sums: Floats = flat.reshape(wide).cumsum(axis=0).cumsum(axis=1)[:, :-1].astype(np.float64)
    return sums
