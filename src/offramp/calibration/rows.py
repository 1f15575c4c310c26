"""Rows: the samples a policy is searched on, with how good and how dear each exit is for each.

They are sorted by all that the search reads of them, so that what it finds does not depend, by
rounding either, on the order in which they are given.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offramp.outputs import ExitOutputs, Unit
from offramp.policy.decision import Thresholds, leaving
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import Score
from offramp.task import measure_of

Floats = NDArray[np.float64]

ALWAYS = -sys.float_info.max
"""A threshold that every score reaches, but for minus infinity, which means never."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples to search a policy on, by rising score and value.

    Attributes:
        temperatures: What the early exits' logits are divided by before the score, where they are.
    """

    outputs: ExitOutputs
    score: Score
    unit: Unit = "flops"
    temperatures: tuple[float, ...] | None = None

    @cached_property
    def scores(self) -> Floats:
        """Of the early exits, (E - 1, N)."""
        return self._sorted[: self.num_early]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Samples by falling score at each early exit, (E - 1, N); ties as they are sorted."""
        return np.argsort(-self.scores, axis=1, kind="stable")

    @cached_property
    def values(self) -> Floats:
        """The measure of each exit's answer, (E, N): 1 where right, or the absolute error."""
        return self._sorted[self.num_early :]

    @cached_property
    def _sorted(self) -> Floats:
        """`scores` above `values`: rows that tie in all of them are the same to the search."""
        measure, given = measure_of(self.outputs.task), self.outputs
        scores = self.score.of(given, self.temperatures)
        both = np.concatenate([scores, measure.values(given.outputs, given.labels)])
        return np.take(both, np.lexsort(both), axis=1)

    @cached_property
    def worth(self) -> Floats:
        """`values`, larger when better."""
        return self.values if self.sign > 0 else -self.values

    @property
    def sign(self) -> float:
        """1 where a larger value is better, otherwise -1."""
        return 1.0 if measure_of(self.outputs.task).higher_is_better else -1.0

    @property
    def num_early(self) -> int:
        """How many exits have a threshold."""
        return len(self.outputs.names) - 1

    def policy(self, thresholds: Thresholds) -> ExitPolicy:
        """The policy with these thresholds; it promises nothing."""
        return ExitPolicy(
            score=self.score,
            thresholds=tuple(thresholds),
            names=tuple(self.outputs.names),
            temperatures=self.temperatures,
            source=self.outputs.source,
        )

    def alone(self, exit: int) -> tuple[float | None, ...]:
        """Thresholds by which this exit answers everything and no other early one runs."""
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
        """Mean cost and mean value, as the policy's `cost` and answers give, but for rounding."""
        leaves = leaving(self.scores, thresholds)
        value = self.values[leaves, np.arange(len(leaves))].mean()
        numbers = np.bincount(leaves, minlength=self.num_early + 1)
        return float(_mean_cost(numbers, self.exit_cost(thresholds))), float(value)

    def sweep(self, thresholds: Thresholds, exit: int) -> tuple[Floats, Floats, Floats]:
        """Every threshold of one exit, the others kept: thresholds, mean costs, mean worths.

        All (T,), thresholds falling; only those that let at least one sample leave. T is 0
        where none can. Exact but for rounding.
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
    """Of numbers of samples per exit (..., E), (...,): no sum over the samples in their order."""
    return np.asarray((numbers * costs).sum(axis=-1) / numbers.sum(axis=-1), np.float64)


def best_first(costs: Sequence[float] | Floats, worths: Sequence[float] | Floats) -> list[int]:
    """Places of the points that no cheaper or equally dear one matches, by rising cost."""
    costs, worths = np.asarray(costs, np.float64), np.asarray(worths, np.float64)
    order = np.lexsort((-worths, costs))
    highest = np.maximum.accumulate(worths[order])
    fresh = np.append(True, highest[1:] > highest[:-1])[: len(order)]
    kept: list[int] = order[fresh].tolist()
    return kept
