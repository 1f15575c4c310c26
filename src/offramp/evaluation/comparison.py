"""Comparison: every branch over its seeds, paired differences and static rivals."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import ShapeError
from offramp.evaluation.branches import Branch, affordable, gathered, paired, passed
from offramp.evaluation.intervals import (
    Bounds,
    Interval,
    resampled_interval,
    resampled_means,
    units_text,
)
from offramp.evaluation.rows import (
    BranchRow,
    FailedBranch,
    PairedDifference,
    Rival,
    RivalDifference,
    RivalRow,
    kind_name,
)
from offramp.evaluation.tradeoff import acceleration, factor_text, practical
from offramp.evaluation.trials import FailedTrial, TrialOutputs
from offramp.record import Record, plain
from offramp.table import Table, scaled_flops
from offramp.task import Measure


@dataclass(frozen=True, eq=False)
class Comparison(Record):
    """Every branch, the final layer, paired differences and static rivals; `str` prints tables.

    Attributes:
        measure: What the values measure.
        samples: Number of samples.
        cuts: Names of all cuts, in the order of the backbone.
        rows: One per cut and branch, ordered by cut.
        final: The final layer.
        differences: One per pair of branch and baseline at the same cut.
        rivals: The static rivals, each with the exits that cost no more.
        failed: Branches whose trials all failed.
        notes: How to read the numbers.
    """

    measure: Measure
    samples: int
    cuts: tuple[str, ...]
    rows: tuple[BranchRow, ...]
    final: BranchRow
    differences: tuple[PairedDifference, ...]
    rivals: tuple[RivalRow, ...]
    failed: tuple[FailedBranch, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; failed branches are included in the rows."""
        values = super().as_json()
        del values["cuts"], values["failed"]
        return {**values, "rows": plain(self.by_cut())}

    def tables(self) -> list[Table]:
        """The table of branches, and those of differences and rivals if there are any."""
        tables = [self._branch_table()]
        if self.differences:
            tables.append(self._difference_table())
        if self.rivals:
            tables.append(self._rival_table())
        return tables

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables()), "\n".join(self.notes)])

    def by_cut(self) -> list[BranchRow | FailedBranch]:
        """All branches, including failed ones, in the order of the cuts."""
        return sorted((*self.rows, *self.failed), key=lambda row: self.cuts.index(row.cut))

    def _branch_table(self) -> Table:
        measured = (*self.rows, self.final)
        unit, (own, passed) = scaled_flops(
            [row.flops for row in measured],
            [row.flops_with_passed or row.flops for row in measured],
        )
        timed = self.final.ms is not None
        squared = [] if self.measure.higher_is_better else [self.measure.root_head]
        head = ["exit", "branch", self.measure.head, "95 % interval", *squared]
        head += ["seeds", "params", unit]
        head += ["with passed", "acceleration", *(["ms"] if timed else []), "remark"]
        lines: dict[BranchRow | FailedBranch, list[str]] = {
            row: [
                row.cut,
                row.branch,
                row.value_text(self.measure),
                row.interval.text(self.measure),
                *self.measure.root_texts([row.rmse]),
                str(len(row.seeds)) if row.seeds else "",
                f"{row.params:,}" if row.seeds else "",
                own[place],
                passed[place] if row.flops_with_passed is not None else "",
                factor_text(row.acceleration),
                *([f"{row.ms:.2f}"] if timed else []),
                row.remark(),
            ]
            for place, row in enumerate(measured)
        }
        for lost in self.failed:
            lines[lost] = [lost.cut, lost.branch, *[""] * (len(head) - 3), lost.remark()]
        rows = [lines[row] for row in (*self.by_cut(), self.final)]
        caption = "Every branch, mean ± standard deviation over seeds"
        return Table(head, rows, caption=caption, left=2, page_only=("95 % interval",))

    def _difference_table(self) -> Table:
        measure, items = self.measure, self.differences
        return Table.of(
            ("exit", [item.cut for item in items]),
            ("paired difference", [f"{item.branch} minus {item.baseline}" for item in items]),
            (measure.difference_head, [measure.difference_text(item.difference) for item in items]),
            ("95 % interval", [item.interval.difference_text(measure) for item in items]),
            ("seeds", [str(len(item.seeds)) for item in items]),
            caption="Paired differences: same samples, same seeds",
            left=2,
            page_only=("seeds",),
        )

    def _rival_table(self) -> Table:
        unit, (flops,) = scaled_flops([row.rival.flops for row in self.rivals])
        measure, rows = self.measure, self.rivals
        intervals = [row.interval.text(measure) if row.interval else "" for row in rows]
        return Table.of(
            ("static rival", [row.rival.name for row in rows]),
            ("how", [row.rival.note for row in rows]),
            (measure.head, [measure.text(row.rival.value) for row in rows]),
            ("95 % interval", intervals),
            (measure.root_head, measure.root_texts(row.rival.rmse for row in rows)),
            (unit, flops),
            caption="Static rivals: no exits, but less compute for every sample",
            left=2,
            page_only=("95 % interval",),
        )


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
        failed: Trials whose training failed; rows list them, means exclude them.
        baseline_kind: Branches of other kinds are paired with each branch of this kind.
        baseline: Label of a single branch to pair all others with instead.
        draws: Number of bootstrap draws.
        seed: Seed of the bootstrap.

    Raises:
        PlanError: No trial has the label `baseline`.
        ShapeError: Rivals share a name or were run on other samples, or a failed trial is at an
            unknown cut or also has answers.
    """
    _check_rivals(rivals, trials.labels.size)
    trials.check_failed(failed)
    every = gathered(trials)
    branches = every[:-1]
    measure = trials.measure
    pairs = paired(branches, baseline_kind, baseline)
    columns = _columns(every, pairs, rivals, measure)
    values = [values for values, _ in columns.values()]
    resampled = resampled_means(values, trials.units, draws=draws, seed=seed)
    intervals = {
        key: resampled_interval(drawn, values, trials.units, bounds)
        for (key, (values, bounds)), drawn in zip(columns.items(), resampled.T, strict=True)
    }
    *rows, final_row = (_row(branch, every, intervals, measure, failed) for branch in every)
    return Comparison(
        measure=measure,
        samples=trials.labels.size,
        cuts=tuple(trials.cut_names.tolist()),
        rows=tuple(rows),
        final=final_row,
        differences=tuple(_difference(one, other, intervals) for one, other in pairs),
        rivals=tuple(_rival_row(rival, branches, intervals) for rival in rivals),
        failed=_failed_branches(branches, failed),
        notes=_notes(every, trials, draws, None if pairs else baseline or kind_name(baseline_kind)),
    )


def _columns(
    every: Sequence[Branch],
    pairs: Sequence[tuple[Branch, Branch]],
    rivals: Sequence[Rival],
    measure: Measure,
) -> dict[Hashable, tuple[NDArray[np.float64], Bounds]]:
    """Collect everything that gets an interval: values (seeds, N) and their bounds.

    Differences are taken per sample.
    """
    *branches, final = every
    columns: dict[Hashable, tuple[NDArray[np.float64], Bounds]] = {
        branch.key: (branch.values, measure.bounds) for branch in (final, *branches)
    }
    for branch, other in pairs:
        columns[branch.key, other.key] = (branch.less(other), measure.difference_bounds)
    for rival in rivals:
        if rival.values is None:
            continue
        columns[rival.name] = (rival.values[np.newaxis], measure.bounds)
        for branch in affordable(rival.flops, branches):
            difference = branch.values - rival.values
            columns[rival.name, branch.key] = (difference, measure.difference_bounds)
    return columns


def _row(
    branch: Branch,
    every: Sequence[Branch],
    intervals: Mapping[Hashable, Interval],
    measure: Measure,
    failed: Sequence[FailedTrial],
) -> BranchRow:
    *branches, final = every
    met = passed(branch, branches)
    is_final = branch is final
    per_seed = branch.values.mean(axis=1)
    kin = [other for other in every if is_final or other.kind == branch.kind or other is final]
    return BranchRow(
        cut=branch.cut,
        branch=branch.label,
        kind=branch.kind,
        series=branch.series,
        value=branch.value,
        std=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        seeds=branch.seeds,
        interval=intervals[branch.key],
        rmse=measure.root(branch.values),
        params=branch.params,
        flops=branch.flops,
        flops_with_passed=None if is_final else branch.flops + sum(o.branch_flops for o in met),
        acceleration=acceleration(final.flops, branch.flops),
        ms=branch.ms,
        ms_with_passed=(
            None if is_final or branch.ms is None else branch.ms + sum(o.branch_ms for o in met)
        ),
        practical=practical(measure, branch.value, branch.flops, ((o.value, o.flops) for o in kin)),
        failed=tuple(trial for trial in failed if (trial.cut, trial.branch) == branch.key),
    )


def _difference(
    branch: Branch, other: Branch, intervals: Mapping[Hashable, Interval]
) -> PairedDifference:
    return PairedDifference(
        cut=branch.cut,
        branch=branch.label,
        kind=branch.kind,
        baseline=other.label,
        baseline_kind=other.kind,
        difference=float(branch.less(other).mean()),
        interval=intervals[branch.key, other.key],
        seeds=branch.shared_seeds(other),
    )


def _rival_row(
    rival: Rival, branches: Sequence[Branch], intervals: Mapping[Hashable, Interval]
) -> RivalRow:
    differences = tuple(
        RivalDifference(
            cut=branch.cut,
            branch=branch.label,
            kind=branch.kind,
            flops=branch.flops,
            difference=branch.value - rival.value,
            interval=intervals.get((rival.name, branch.key)),
        )
        for branch in affordable(rival.flops, branches)
    )
    return RivalRow(rival, intervals.get(rival.name), differences)


def _failed_branches(
    branches: Sequence[Branch], failed: Sequence[FailedTrial]
) -> tuple[FailedBranch, ...]:
    keys = dict.fromkeys((trial.cut, trial.branch, trial.kind) for trial in failed)
    known = {branch.key for branch in branches}
    return tuple(
        FailedBranch(*key, tuple(t for t in failed if (t.cut, t.branch, t.kind) == key))
        for key in keys
        if key[:2] not in known
    )


def _notes(
    every: Sequence[Branch], trials: TrialOutputs, draws: int, unpaired: str | None
) -> tuple[str, ...]:
    """Explain how to read the numbers; `unpaired` is a baseline that pairs with no branch."""
    seeds = sorted({seed for branch in every for seed in branch.seeds})
    drawn = "samples" if trials.units is None else "units"
    notes = [
        f"{units_text(trials.labels.size, trials.units)}; seeds {', '.join(map(str, seeds))}; ± is "
        "the sample standard deviation over seeds.",
        "All seeds see the data in the same order; they vary initialisation and dropout only.",
        f"95 % intervals: percentile bootstrap, {draws} draws over {drawn} (shared by all rows) "
        "and seeds, without correction for multiple comparisons. "
        + (
            "There is only one seed, so they do not cover variation over seeds."
            if len(seeds) == 1
            else "With few seeds they are somewhat too narrow if seeds differ a lot."
        ),
        "FLOPs: a multiply-add counts as 2. The first column counts an exit's own path; `with "
        "passed` adds the branches with the same name at earlier cuts. Acceleration: whole "
        "backbone / own path.",
        "Impractical: a cheaper exit of the same kind, or the final layer if cheaper, has an "
        "equal or better mean.",
    ]
    notes += [trials.measure.note] if trials.measure.note else []
    if unpaired is not None:
        notes.append(f"No paired differences: no cut has both {unpaired} and another branch.")
    return tuple(notes)


def _check_rivals(rivals: Sequence[Rival], samples: int) -> None:
    names = [rival.name for rival in rivals]
    if len(set(names)) != len(names):
        raise ShapeError(f"rivals must have different names; got {names}.")
    for rival in rivals:
        if rival.values is not None and rival.values.shape != (samples,):
            raise ShapeError(
                f"rival {rival.name!r} has {rival.values.shape} values for {samples} samples. "
                "Run it on the samples that the exits answered."
            )
