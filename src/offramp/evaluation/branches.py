"""Trials gathered by cut and branch, and what each branch costs on its path."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.trials import TrialOutputs
from offramp.task import measure_of


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch at one cut with all its seeds.

    Attributes:
        place: Of its cut, from 0 in the backbone's order.
        series: What joins it to branches at other cuts: its kind, or its label where a cut holds
            several of the kind.
        seeds: Ascending.
        values: (seeds, N) the measure of each answer.
        branch_ms: Mean over seeds; 0 when nothing was measured.
    """

    cut: str
    place: int
    label: str
    kind: str
    series: str
    seeds: tuple[int, ...]
    values: NDArray[np.float64]
    params: int
    branch_flops: int
    branch_ms: float

    @property
    def key(self) -> tuple[str, str]:
        """Cut and label, which no other branch shares."""
        return self.cut, self.label

    @property
    def value(self) -> float:
        """Mean over seeds and samples."""
        return float(self.values.mean())

    def over(self, seeds: Sequence[int]) -> NDArray[np.float64]:
        """The values of these seeds, in this order."""
        return self.values[[self.seeds.index(seed) for seed in seeds]]

    def shared_seeds(self, other: "Branch") -> tuple[int, ...]:
        """The seeds that both have."""
        return tuple(seed for seed in self.seeds if seed in other.seeds)


@dataclass(frozen=True, eq=False)
class Branches(Sequence[Branch]):
    """All branches by cut, the final layer's values (1, N), and what the stages cost."""

    trials: TrialOutputs
    branches: tuple[Branch, ...]
    final: NDArray[np.float64]

    @classmethod
    def of(cls, trials: TrialOutputs) -> Self:
        """Gather trials; branches are sorted by cut, then as first met."""
        measure = measure_of(trials.task)
        values = measure.values(trials.outputs, trials.labels)
        keys = list(dict.fromkeys(_keys(trials)))
        order = {cut: place for place, cut in enumerate(trials.cut_names.tolist())}
        keys.sort(key=lambda key: order[key[0]])
        several = _kinds_with_several_at_a_cut(trials)
        branches = [_branch(trials, values, key, order[key[0]], several) for key in keys]
        final = measure.values(trials.final[np.newaxis], trials.labels)
        return cls(trials, tuple(branches), final)

    def __len__(self) -> int:
        return len(self.branches)

    def __getitem__(self, index: Any) -> Any:
        return self.branches[index]

    @property
    def final_value(self) -> float:
        """Of the final layer."""
        return float(self.final.mean())

    @property
    def whole_flops(self) -> int:
        """Of the whole backbone."""
        return int(self.trials.stage_flops.sum())

    @property
    def whole_ms(self) -> float | None:
        """Of the whole backbone, if measured."""
        return None if self.trials.stage_ms is None else float(self.trials.stage_ms.sum())

    def flops(self, branch: Branch) -> int:
        """On its own path."""
        return int(self.trials.stage_flops[: branch.place + 1].sum()) + branch.branch_flops

    def ms(self, branch: Branch) -> float | None:
        """On its own path, if measured."""
        if self.trials.stage_ms is None:
            return None
        return float(self.trials.stage_ms[: branch.place + 1].sum()) + branch.branch_ms

    def passed(self, branch: Branch) -> list[Branch]:
        """The branches met on the way: per earlier cut the one that continues the series."""
        met = []
        for place in range(branch.place):
            there = [other for other in self.branches if other.place == place]
            same = [other for other in there if other.label == branch.label]
            kin = [other for other in there if other.kind == branch.kind]
            met += (same or kin)[:1]
        return met

    def affordable(self, flops: int) -> list[Branch]:
        """Per series the most expensive branch that costs at most this on its own path."""
        best: dict[str, Branch] = {}
        for branch in sorted(self.branches, key=self.flops):
            if self.flops(branch) <= flops:
                best[branch.series] = branch
        return list(best.values())


def _keys(trials: TrialOutputs) -> list[tuple[str, str]]:
    return list(zip(trials.cuts.tolist(), trials.branches.tolist(), strict=True))


def _kinds_with_several_at_a_cut(trials: TrialOutputs) -> set[str]:
    found = set(zip(trials.cuts.tolist(), trials.kinds.tolist(), trials.branches, strict=True))
    places = [(cut, kind) for cut, kind, _ in found]
    return {kind for cut, kind in places if places.count((cut, kind)) > 1}


def _branch(
    trials: TrialOutputs,
    values: NDArray[np.float64],
    key: tuple[str, str],
    place: int,
    several: set[str],
) -> Branch:
    mine = [index for index, other in enumerate(_keys(trials)) if other == key]
    mine.sort(key=lambda index: int(trials.seeds[index]))
    kind = str(trials.kinds[mine[0]])
    return Branch(
        cut=key[0],
        place=place,
        label=key[1],
        kind=kind,
        series=key[1] if kind in several else kind,
        seeds=tuple(trials.seeds[mine].tolist()),
        values=values[mine],
        params=int(trials.params[mine[0]]),
        branch_flops=int(trials.branch_flops[mine[0]]),
        branch_ms=0.0 if trials.branch_ms is None else float(trials.branch_ms[mine].mean()),
    )
