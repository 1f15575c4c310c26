"""Branch: all trials of one branch at one cut, and what it costs on its path."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError
from offramp.evaluation.trials import TrialOutputs
from offramp.task import measure_of


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch at one cut with all its seeds; or the final layer, which has none.

    Attributes:
        place: Of its cut, from 0 in the backbone's order.
        series: What joins it to branches at other cuts: its kind, or its label where a cut holds
            several of the kind.
        seeds: Ascending.
        values: (seeds, N) the measure of each answer; (1, N) of the final layer.
        branch_flops: Of the branch alone.
        branch_ms: Of the branch alone, mean over seeds; 0 when nothing was measured.
        flops: On its own path.
        ms: On its own path, if measured.
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
    flops: int
    ms: float | None

    @property
    def key(self) -> tuple[str, str]:
        """Cut and label, which no other branch shares."""
        return self.cut, self.label

    @property
    def value(self) -> float:
        """Mean over seeds and samples."""
        return float(self.values.mean())

    def shared_seeds(self, other: "Branch") -> tuple[int, ...]:
        """The seeds that both have."""
        return tuple(seed for seed in self.seeds if seed in other.seeds)

    def less(self, other: "Branch") -> NDArray[np.float64]:
        """Values less those of another branch from the same seed, (shared seeds, N)."""
        one, two = (
            branch.values[[branch.seeds.index(seed) for seed in self.shared_seeds(other)]]
            for branch in (self, other)
        )
        return one - two


def gathered(trials: TrialOutputs) -> list[Branch]:
    """All branches, by cut and then as first met; the final layer comes last."""
    trials_of: dict[tuple[str, str, str], list[int]] = {}
    names = (array.tolist() for array in (trials.cuts, trials.branches, trials.kinds))
    for trial, key in enumerate(zip(*names, strict=True)):
        trials_of.setdefault(key, []).append(trial)
    at_one_cut = Counter((cut, kind) for cut, _, kind in trials_of)
    several = {kind for (_, kind), count in at_one_cut.items() if count > 1}
    cuts = trials.cut_names.tolist()
    branches = [
        _branch(trials, key, cuts.index(key[0]), key[1] if key[2] in several else key[2], rows)
        for key, rows in sorted(trials_of.items(), key=lambda item: cuts.index(item[0][0]))
    ]
    final = ("final", "backbone", "backbone")
    return [*branches, _branch(trials, final, len(cuts), "backbone", [])]


def paired(
    branches: Sequence[Branch], baseline_kind: str, baseline: str | None
) -> list[tuple[Branch, Branch]]:
    """Each branch with the baselines at its cut that share a seed with it.

    Raises:
        PlanError: No branch has the label `baseline`.
    """
    labels = sorted({branch.label for branch in branches})
    if baseline is not None and baseline not in labels:
        near = difflib.get_close_matches(baseline, labels, n=3, cutoff=0.0)
        raise PlanError(f"no trial has the label {baseline!r}. The nearest labels are {near}.")

    def is_baseline(branch: Branch) -> bool:
        return branch.kind == baseline_kind if baseline is None else branch.label == baseline

    return [
        (branch, other)
        for branch in branches
        for other in branches
        if branch.cut == other.cut and is_baseline(other) and not is_baseline(branch)
        if branch.shared_seeds(other)
    ]


def passed(branch: Branch, branches: Sequence[Branch]) -> list[Branch]:
    """The branches met on the way: per earlier cut the one that continues the series."""
    met = []
    for place in range(branch.place):
        there = [other for other in branches if other.place == place]
        same = [other for other in there if other.label == branch.label]
        kin = [other for other in there if other.kind == branch.kind]
        met += (same or kin)[:1]
    return met


def affordable(flops: int, branches: Sequence[Branch]) -> list[Branch]:
    """Per series the most expensive branch that costs at most this on its own path."""
    by_cost = sorted(branches, key=lambda branch: branch.flops)
    return list({branch.series: branch for branch in by_cost if branch.flops <= flops}.values())


def _branch(
    trials: TrialOutputs,
    key: tuple[str, str, str],
    place: int,
    series: str,
    rows: Sequence[int],
) -> Branch:
    """From its rows of the trials; without any it is the final layer."""
    rows = sorted(rows, key=lambda row: int(trials.seeds[row]))
    outputs = trials.outputs[rows] if rows else trials.final[np.newaxis]
    branch_flops = int(trials.branch_flops[rows[0]]) if rows else 0
    measured = trials.branch_ms if rows else None
    branch_ms = 0.0 if measured is None else float(measured[rows].mean())
    stages = slice(place + 1)
    return Branch(
        cut=key[0],
        place=place,
        label=key[1],
        kind=key[2],
        series=series,
        seeds=tuple(trials.seeds[rows].tolist()) if rows else (),
        values=measure_of(trials.task).values(outputs, trials.labels),
        params=int(trials.params[rows[0]]) if rows else 0,
        branch_flops=branch_flops,
        branch_ms=branch_ms,
        flops=int(trials.stage_flops[stages].sum()) + branch_flops,
        ms=None if trials.stage_ms is None else float(trials.stage_ms[stages].sum()) + branch_ms,
    )
