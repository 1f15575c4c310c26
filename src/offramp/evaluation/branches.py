"""Branch: all trials of one branch at one cut, with its cost on its own path."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError
from offramp.evaluation.trials import TrialOutputs


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch at one cut with all its seeds, or the final layer, which has no branch or seeds.

    Attributes:
        place: Index of its cut, from 0 in the order of the backbone.
        series: Name of the series of matching branches at other cuts: its kind, or its label if a
            cut has several branches of that kind.
        seeds: Seeds in ascending order.
        values: (seeds, N) measure of each answer; (1, N) for the final layer.
        branch_flops: FLOPs of the branch alone.
        branch_ms: Milliseconds of the branch alone, mean over seeds; 0 if not measured.
        flops: FLOPs on its own path.
        ms: Milliseconds on its own path, if measured.
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
        """Cut and label, which are unique to this branch."""
        return self.cut, self.label

    @property
    def value(self) -> float:
        """Mean value over seeds and samples."""
        return float(self.values.mean())

    def shared_seeds(self, other: "Branch") -> tuple[int, ...]:
        """Seeds that both branches have."""
        return tuple(seed for seed in self.seeds if seed in other.seeds)

    def less(self, other: "Branch") -> NDArray[np.float64]:
        """Differences of values from another branch with the same seed, (shared seeds, N)."""
        one, two = (
            branch.values[[branch.seeds.index(seed) for seed in self.shared_seeds(other)]]
            for branch in (self, other)
        )
        return one - two


def gathered(trials: TrialOutputs) -> list[Branch]:
    """Collect all branches by cut, then in order of first appearance; the final layer is last."""
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
    """Pair each branch with the baselines at its cut that share a seed with it.

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
    """The branches passed on the way: at each earlier cut, the one of the same series."""
    met = []
    for place in range(branch.place):
        there = [other for other in branches if other.place == place]
        same = [other for other in there if other.label == branch.label]
        kin = [other for other in there if other.kind == branch.kind]
        met += (same or kin)[:1]
    return met


def affordable(flops: int, branches: Sequence[Branch]) -> list[Branch]:
    """For each series, the most expensive branch whose own path costs at most `flops`."""
    by_cost = sorted(branches, key=lambda branch: branch.flops)
    return list({branch.series: branch for branch in by_cost if branch.flops <= flops}.values())


def _branch(
    trials: TrialOutputs,
    key: tuple[str, str, str],
    place: int,
    series: str,
    rows: Sequence[int],
) -> Branch:
    """Build a branch from its rows of the trials, or the final layer if there are none."""
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
        values=trials.measure.values(outputs, trials.labels),
        params=int(trials.params[rows[0]]) if rows else 0,
        branch_flops=branch_flops,
        branch_ms=branch_ms,
        flops=int(trials.stage_flops[stages].sum()) + branch_flops,
        ms=None if trials.stage_ms is None else float(trials.stage_ms[stages].sum()) + branch_ms,
    )
