"""Compares branches over seeds: means and spread, paired differences, static rivals."""

import difflib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError, ShapeError
from offramp.evaluation.branches import Branch, Branches
from offramp.evaluation.comparison import Comparison
from offramp.evaluation.intervals import Bootstrap, Bounds, Interval, resampled_interval, units_text
from offramp.evaluation.rows import (
    BranchRow,
    FailedBranch,
    PairedDifference,
    Rival,
    RivalDifference,
    RivalRow,
    kind_name,
)
from offramp.evaluation.tradeoff import acceleration, practical_exits
from offramp.evaluation.trials import FailedTrial, TrialOutputs
from offramp.task import measure_of


def compare(
    trials: TrialOutputs,
    rivals: Sequence[Rival] = (),
    *,
    failed: Sequence[FailedTrial] = (),
    baseline_kind: str = "conv",
    baseline: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare every branch with the baselines at its cut, the final layer and static rivals.

    Args:
        trials: Answers of every branch from every seed.
        rivals: Static rivals, run on the same samples in the same order.
        failed: Trials that ended without a branch; rows show them, means leave them out.
        baseline_kind: Branches of other kinds are paired with each branch of this kind.
        baseline: Label of one branch; all others are paired with it instead.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        PlanError: No trial has the label `baseline`.
        ShapeError: Rivals that share a name or were run on other samples; a failed trial at an
            unknown cut, or one that has answers too.
    """
    _check_rivals(rivals, trials.labels.size)
    _check_failed(failed, trials)
    branches = Branches.of(trials)
    pairs = _pairs(branches, baseline_kind, baseline)
    columns = _columns(branches, pairs, rivals)
    bootstrap = Bootstrap(draws, seed)
    resampled = bootstrap.means([column.values for column in columns.values()], trials.units)
    intervals = {
        key: resampled_interval(drawn, column.values, trials.units, column.bounds)
        for (key, column), drawn in zip(columns.items(), resampled.T, strict=True)
    }
    return Comparison(
        measure=measure_of(trials.task),
        samples=trials.labels.size,
        cuts=tuple(trials.cut_names.tolist()),
        rows=tuple(
            _row(branches, branch, intervals["row", branch.key], failed) for branch in branches
        ),
        final=_final_row(branches, intervals["final"]),
        differences=tuple(
            _difference(one, other, intervals["pair", one.key, other.key]) for one, other in pairs
        ),
        rivals=tuple(_rival_row(branches, rival, intervals) for rival in rivals),
        failed=_failed_branches(branches, failed),
        notes=_notes(branches, bootstrap, baseline or kind_name(baseline_kind), bool(pairs)),
    )


@dataclass(frozen=True, eq=False)
class _Column:
    """What gets an interval: values (seeds, N), and between which bounds each of them lies."""

    values: NDArray[np.float64]
    bounds: Bounds


def _pairs(
    branches: Branches, baseline_kind: str, baseline: str | None
) -> list[tuple[Branch, Branch]]:
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


def _columns(
    branches: Branches, pairs: Sequence[tuple[Branch, Branch]], rivals: Sequence[Rival]
) -> dict[Hashable, _Column]:
    """Everything that gets an interval; differences are taken per sample."""
    measure = measure_of(branches.trials.task)
    columns: dict[Hashable, _Column] = {"final": _Column(branches.final, measure.bounds)}
    for branch in branches:
        columns["row", branch.key] = _Column(branch.values, measure.bounds)
    for branch, other in pairs:
        seeds = branch.shared_seeds(other)
        difference = branch.over(seeds) - other.over(seeds)
        columns["pair", branch.key, other.key] = _Column(difference, measure.difference_bounds)
    for rival in rivals:
        if rival.values is None:
            continue
        columns["rival", rival.name] = _Column(rival.values[np.newaxis], measure.bounds)
        for branch in branches.affordable(rival.flops):
            column = _Column(branch.values - rival.values, measure.difference_bounds)
            columns["rival", rival.name, branch.key] = column
    return columns


def _row(
    branches: Branches, branch: Branch, interval: Interval, failed: Sequence[FailedTrial]
) -> BranchRow:
    passed = branches.passed(branch)
    per_seed = branch.values.mean(axis=1)
    own, own_ms = branches.flops(branch), branches.ms(branch)
    return BranchRow(
        cut=branch.cut,
        branch=branch.label,
        kind=branch.kind,
        series=branch.series,
        value=branch.value,
        std=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        seeds=branch.seeds,
        interval=interval,
        params=branch.params,
        flops=own,
        flops_with_passed=own + sum(other.branch_flops for other in passed),
        acceleration=acceleration(branches.whole_flops, own),
        ms=own_ms,
        ms_with_passed=None if own_ms is None else own_ms + sum(o.branch_ms for o in passed),
        practical=_practical(branches, [o for o in branches if o.kind == branch.kind], branch),
        failed=tuple(trial for trial in failed if (trial.cut, trial.branch) == branch.key),
    )


def _final_row(branches: Branches, interval: Interval) -> BranchRow:
    return BranchRow(
        cut="final",
        branch="backbone",
        kind="backbone",
        series="backbone",
        value=branches.final_value,
        std=None,
        seeds=(),
        interval=interval,
        params=0,
        flops=branches.whole_flops,
        flops_with_passed=None,
        acceleration=1.0,
        ms=branches.whole_ms,
        ms_with_passed=None,
        practical=_practical(branches, branches, None),
    )


def _practical(branches: Branches, kin: Sequence[Branch], branch: Branch | None) -> bool:
    """Whether an exit (None: the final layer) beats all that are cheaper, among kin and final."""
    values = np.array([*(other.value for other in kin), branches.final_value])
    costs = np.array([*map(branches.flops, kin), branches.whole_flops], np.float64)
    place = len(kin) if branch is None else list(kin).index(branch)
    return practical_exits(measure_of(branches.trials.task), values, costs)[place]


def _difference(branch: Branch, other: Branch, interval: Interval) -> PairedDifference:
    seeds = branch.shared_seeds(other)
    return PairedDifference(
        cut=branch.cut,
        branch=branch.label,
        kind=branch.kind,
        baseline=other.label,
        baseline_kind=other.kind,
        difference=float((branch.over(seeds) - other.over(seeds)).mean()),
        interval=interval,
        seeds=seeds,
    )


def _rival_row(
    branches: Branches, rival: Rival, intervals: Mapping[Hashable, Interval]
) -> RivalRow:
    differences = tuple(
        RivalDifference(
            cut=branch.cut,
            branch=branch.label,
            kind=branch.kind,
            flops=branches.flops(branch),
            difference=branch.value - rival.value,
            interval=intervals.get(("rival", rival.name, branch.key)),
        )
        for branch in branches.affordable(rival.flops)
    )
    return RivalRow(rival, intervals.get(("rival", rival.name)), differences)


def _failed_branches(branches: Branches, failed: Sequence[FailedTrial]) -> tuple[FailedBranch, ...]:
    known = {branch.key for branch in branches}
    keys = dict.fromkeys((trial.cut, trial.branch, trial.kind) for trial in failed)
    return tuple(
        FailedBranch(*key, tuple(t for t in failed if (t.cut, t.branch, t.kind) == key))
        for key in keys
        if key[:2] not in known
    )


def _notes(
    branches: Branches, bootstrap: Bootstrap, baseline: str, paired: bool
) -> tuple[str, ...]:
    seeds = sorted({seed for branch in branches for seed in branch.seeds})
    units = branches.trials.units
    drawn = "samples" if units is None else "units"
    notes = [
        f"{units_text(branches.final.size, units)}; seeds {', '.join(map(str, seeds))}; ± is the "
        "sample standard deviation over seeds.",
        "Data order is one stream shared by all seeds; they vary initialisation and dropout only.",
        f"95 % intervals: percentile bootstrap, {bootstrap.draws} draws over {drawn} (one draw "
        "for all rows) and seeds, each interval for itself. "
        + (
            "One seed: they say nothing about other seeds."
            if len(seeds) == 1
            else "With few seeds they are somewhat too narrow where seeds differ much."
        ),
        "FLOPs: a multiply-add is 2; own path, then with the branches of the same series at "
        "earlier cuts. Acceleration: whole backbone / own path.",
        "Impractical: a cheaper exit of the same kind, or the final layer if cheaper, is at "
        "least as good on these means.",
    ]
    if not paired:
        notes.append(f"No paired differences: no cut has {baseline} and another branch.")
    return tuple(notes)


def _check_rivals(rivals: Sequence[Rival], samples: int) -> None:
    names = [rival.name for rival in rivals]
    if len(set(names)) != len(names):
        raise ShapeError(f"rivals must have different names, got {names}.")
    for rival in rivals:
        if rival.values is not None and rival.values.shape != (samples,):
            raise ShapeError(
                f"rival {rival.name!r} has {rival.values.shape} values for {samples} samples. "
                "Run it on the samples that the exits answered."
            )


def _check_failed(failed: Sequence[FailedTrial], trials: TrialOutputs) -> None:
    answered = set(zip(trials.cuts.tolist(), trials.branches.tolist(), trials.seeds, strict=True))
    for trial in failed:
        if trial.cut not in trials.cut_names.tolist():
            raise ShapeError(
                f"a failed trial is at cut {trial.cut!r}, and the cuts are "
                f"{trials.cut_names.tolist()}. Give failed trials of the same run."
            )
        if (trial.cut, trial.branch, trial.seed) in answered:
            raise ShapeError(
                f"seed {trial.seed} of {trial.branch!r} at {trial.cut!r} is among the failed "
                "trials and has answers. Give each trial once."
            )
