"""Pool: a finite population of outputs, on which every policy's risk and saving are known."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offramp import cost
from offramp.calibration.roles import clusters_of
from offramp.outputs import ExitOutputs
from offramp.policy import SCORES, leaving

Floats = NDArray[np.float64]
Thresholds = tuple[float | None, ...]


@dataclass(frozen=True)
class Judged:
    """A policy on all rows of a pool.

    Attributes:
        drop: Accuracy of the last exit minus the policy's.
        unequal: Share of rows where just one of the two is right.
        saved: Share of the backbone's FLOPs; branches that run are paid for.
    """

    drop: float
    unequal: float
    saved: float


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples there are.

    Attributes:
        name: For the tables.
        outputs: Of all exits on them.
    """

    name: str
    outputs: ExitOutputs

    @cached_property
    def scores(self) -> Floats:
        """Largest probability of the early exits, (E - 1, N)."""
        return SCORES["max_softmax"].of(self.outputs)

    @cached_property
    def losses(self) -> NDArray[np.int8]:
        """1 where only the last exit is right, -1 where only this one is, else 0: (E, N)."""
        right = self.outputs.correct.astype(np.int8)
        losses: NDArray[np.int8] = right[-1] - right
        return losses

    @property
    def num_early(self) -> int:
        """How many exits have a threshold."""
        return len(self.outputs.names) - 1

    def __len__(self) -> int:
        return len(self.outputs.labels)

    def saving(self, thresholds: Thresholds) -> Floats:
        """Share of the backbone's FLOPs that leaving at each exit saves, (E,)."""
        stages, branches = self.outputs.costs()
        runs = np.array([*(threshold is not None for threshold in thresholds), True])
        costs = cost.with_passed(stages, branches, runs)
        saved: Floats = 1 - costs / np.sum(stages)
        return saved

    def judge(self, thresholds: Thresholds) -> Judged:
        """Drop, disagreement in being right, and saving of a policy on all rows."""
        leaves = leaving(self.scores, thresholds)
        losses = self.losses[leaves, np.arange(len(self))]
        shares = np.bincount(leaves, minlength=self.num_early + 1) / len(self)
        saved = float(shares @ self.saving(thresholds))
        return Judged(float(losses.mean()), float((losses != 0).mean()), saved)

    @cached_property
    def clusters(self) -> NDArray[np.int64] | None:
        """Cluster of each row, (N,); None where all rows are independent."""
        return clusters_of(self.outputs)

    def draw(self, num: int, rng: np.random.Generator) -> "Pool":
        """A calibration set of about so many rows, drawn with replacement cluster by cluster."""
        if self.clusters is None:
            return self.drawn(rng.integers(len(self), size=num))
        first = np.unique(self._by_cluster[1], return_index=True)[1]
        ends = np.append(first[1:], len(self))
        chosen = rng.integers(len(first), size=round(num * len(first) / len(self)))
        rows = [self._by_cluster[0][first[each] : ends[each]] for each in chosen]
        numbers = np.repeat(np.arange(len(chosen)), [len(each) for each in rows])
        return self.drawn(np.concatenate(rows), numbers)

    @cached_property
    def _by_cluster(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows sorted by cluster, and their clusters."""
        clusters = self.clusters if self.clusters is not None else np.arange(len(self))
        rows = np.argsort(clusters, kind="stable")
        return rows, clusters[rows]

    def drawn(self, rows: NDArray[np.int64], clusters: NDArray[np.int64] | None = None) -> "Pool":
        """A calibration set of these rows; a cluster drawn twice is two clusters."""
        ids = None if clusters is None or self.outputs.ids is None else clusters.astype(str)
        outputs = ExitOutputs(
            outputs=self.outputs.outputs[:, rows],
            labels=self.outputs.labels[rows],
            stage_flops=self.outputs.stage_flops,
            branch_flops=self.outputs.branch_flops,
            names=self.outputs.names,
            ids=ids,
            clusters=None if ids is not None else clusters,
        )
        return Pool(self.name, outputs)


def oracle_saving(pool: Pool, max_drop: float) -> float:
    """Most that any rule could save, if it knew which exits are right: the oracle curve.

    Each sample leaves at the cheapest exit that is right, or at the cheapest of all where none is;
    what the drop allows is spent where one wrong answer saves most. The rule pays no branch but
    that of the exit it leaves at, so no policy reaches it.
    """
    stages, branches = pool.outputs.costs()
    saving = 1 - cost.own_path(stages, branches) / np.sum(stages)
    right = pool.outputs.correct
    some = right.any(axis=0)
    saved = np.where(right, saving[:, None], -np.inf).max(axis=0)
    saved = np.where(some, saved, saving.max())
    gained = np.count_nonzero(some & ~right[-1])
    more = np.sort(saving.max() - saved)[::-1][: int(max_drop * len(pool)) + gained]
    return float((saved.sum() + more.sum()) / len(pool))
