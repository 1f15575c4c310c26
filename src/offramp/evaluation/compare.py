"""Compares branches over seeds: means and spread, paired differences, static rivals."""

import difflib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError
from offramp.evaluation.board import Board, Entry
from offramp.evaluation.comparison import BranchRow, Comparison, PairedDifference, kind_name
from offramp.evaluation.intervals import Bootstrap, Interval, percentile_interval
from offramp.evaluation.rivals import Duel, Rival, RivalRow, check_rivals
from offramp.evaluation.tradeoff import acceleration, practical_exits
from offramp.evaluation.trials import TrialOutputs
from offramp.task import measure_of

_FINAL = ("final",)


def compare(
    trials: TrialOutputs,
    rivals: Sequence[Rival] = (),
    *,
    baseline_kind: str = "conv",
    baseline: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare every branch with the baselines at its cut, the final layer and static rivals.

    Args:
        trials: Answers of every branch from every seed.
        rivals: Static rivals, run on the same samples in the same order.
        baseline_kind: Branches of other kinds are paired with each branch of this kind.
        baseline: Label of one branch; all others are paired with it instead.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        PlanError: No trial has the label `baseline`.
        ShapeError: Rivals that share a name or were run on other samples.
    """
    check_rivals(rivals, trials.labels.size)
    board = Board.of(trials)
    pairs = _pairs(board.entries, baseline_kind, baseline)
    duels = [(rival, entry) for rival in rivals for entry in board.affordable(rival.flops)]
    columns = _columns(board, pairs, rivals, duels)
    bootstrap = Bootstrap(draws, seed)
    resampled = bootstrap.means(list(columns.values()), trials.ids)
    intervals = dict(zip(columns, map(percentile_interval, resampled.T), strict=True))
    return Comparison(
        measure=measure_of(trials.task),
        samples=trials.labels.size,
        rows=tuple(_row(board, entry, intervals["row", entry.key]) for entry in board.entries),
        final=_final_row(board, intervals[_FINAL]),
        differences=tuple(
            _difference(one, other, intervals["pair", one.key, other.key]) for one, other in pairs
        ),
        rivals=tuple(_rival_row(board, rival, duels, intervals) for rival in rivals),
        notes=_notes(board, bootstrap, baseline or kind_name(baseline_kind), bool(pairs)),
    )


def _pairs(
    entries: Sequence[Entry], baseline_kind: str, baseline: str | None
) -> list[tuple[Entry, Entry]]:
    labels = sorted({entry.branch for entry in entries})
    if baseline is not None and baseline not in labels:
        near = difflib.get_close_matches(baseline, labels, n=3, cutoff=0.0)
        raise PlanError(f"no trial has the label {baseline!r}. The nearest labels are {near}.")

    def is_baseline(entry: Entry) -> bool:
        return entry.kind == baseline_kind if baseline is None else entry.branch == baseline

    return [
        (entry, other)
        for entry in entries
        for other in entries
        if entry.cut == other.cut and is_baseline(other) and not is_baseline(entry)
        if set(entry.seeds) & set(other.seeds)
    ]


def _shared_seeds(one: Entry, other: Entry) -> tuple[int, ...]:
    return tuple(seed for seed in one.seeds if seed in other.seeds)


def _columns(
    board: Board,
    pairs: Sequence[tuple[Entry, Entry]],
    rivals: Sequence[Rival],
    duels: Sequence[tuple[Rival, Entry]],
) -> dict[Hashable, NDArray[np.float64]]:
    """Everything that gets an interval, (seeds, N) each; differences are taken per sample."""
    columns: dict[Hashable, NDArray[np.float64]] = {_FINAL: board.final}
    for entry in board.entries:
        columns["row", entry.key] = entry.values
    for entry, other in pairs:
        seeds = _shared_seeds(entry, other)
        columns["pair", entry.key, other.key] = entry.over(seeds) - other.over(seeds)
    for rival in rivals:
        if rival.values is not None:
            columns["rival", rival.name] = rival.values[np.newaxis]
    for rival, entry in duels:
        if rival.values is not None:
            columns["duel", rival.name, entry.key] = entry.values - rival.values
    return columns


def _row(board: Board, entry: Entry, interval: Interval) -> BranchRow:
    passed = board.passed(entry)
    per_seed = entry.values.mean(axis=1)
    own, own_ms = board.flops(entry), board.ms(entry)
    return BranchRow(
        cut=entry.cut,
        branch=entry.branch,
        kind=entry.kind,
        series=entry.series,
        value=entry.value,
        std=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else None,
        seeds=entry.seeds,
        interval=interval,
        params=entry.params,
        flops=own,
        flops_with_passed=own + sum(other.branch_flops for other in passed),
        acceleration=acceleration(board.whole_flops, own),
        ms=own_ms,
        ms_with_passed=None if own_ms is None else own_ms + sum(e.branch_ms for e in passed),
        practical=_practical(board, [e for e in board.entries if e.kind == entry.kind], entry),
    )


def _final_row(board: Board, interval: Interval) -> BranchRow:
    return BranchRow(
        cut="final",
        branch="backbone",
        kind="backbone",
        series="backbone",
        value=board.final_value,
        std=None,
        seeds=(),
        interval=interval,
        params=0,
        flops=board.whole_flops,
        flops_with_passed=None,
        acceleration=1.0,
        ms=board.whole_ms,
        ms_with_passed=None,
        practical=_practical(board, board.entries, None),
    )


def _practical(board: Board, kin: Sequence[Entry], entry: Entry | None) -> bool:
    """Whether an exit (None: the final layer) beats all that are cheaper, among kin and final."""
    values = np.array([*(other.value for other in kin), board.final_value])
    costs = np.array([*map(board.flops, kin), board.whole_flops], np.float64)
    place = len(kin) if entry is None else list(kin).index(entry)
    return practical_exits(measure_of(board.trials.task), values, costs)[place]


def _difference(entry: Entry, other: Entry, interval: Interval) -> PairedDifference:
    seeds = _shared_seeds(entry, other)
    return PairedDifference(
        cut=entry.cut,
        branch=entry.branch,
        kind=entry.kind,
        baseline=other.branch,
        baseline_kind=other.kind,
        difference=float((entry.over(seeds) - other.over(seeds)).mean()),
        interval=interval,
        seeds=seeds,
    )


def _rival_row(
    board: Board,
    rival: Rival,
    duels: Sequence[tuple[Rival, Entry]],
    intervals: Mapping[Hashable, Interval],
) -> RivalRow:
    fought = tuple(
        Duel(
            cut=entry.cut,
            branch=entry.branch,
            kind=entry.kind,
            flops=board.flops(entry),
            difference=entry.value - rival.value,
            interval=intervals.get(("duel", rival.name, entry.key)),
        )
        for other, entry in duels
        if other is rival
    )
    return RivalRow(rival, intervals.get(("rival", rival.name)), fought)


def _notes(board: Board, bootstrap: Bootstrap, baseline: str, paired: bool) -> tuple[str, ...]:
    seeds = sorted({seed for entry in board.entries for seed in entry.seeds})
    notes = [
        f"{board.final.size} samples; seeds {', '.join(map(str, seeds))}; ± is the sample "
        "standard deviation over seeds.",
        "Data order is one stream shared by all seeds; they vary initialisation and dropout only.",
        f"95 % intervals: percentile bootstrap, {bootstrap.draws} draws over samples (one draw "
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
