"""What a comparison of branches found: values to show, to save and to plot."""

from dataclasses import asdict, dataclass
from typing import Any

from offramp.evaluation.intervals import Interval
from offramp.evaluation.rivals import RivalRow
from offramp.evaluation.tradeoff import finite_or_none
from offramp.table import scaled_flops, text_table
from offramp.task import Measure

_KIND_NAMES = {"slvit": "SL-ViT", "conv": "CNN", "backbone": "final layer"}


@dataclass(frozen=True)
class BranchRow:
    """One branch at one cut, over its seeds; or the final layer, which has no branch.

    Attributes:
        cut: Where it sits; `final` for the final layer.
        branch: Label of its settings; `backbone` for the final layer.
        kind: Kind of the branch; `backbone` for the final layer.
        series: What joins it to the branches of other cuts: its kind, or its label where a cut
            holds several of the kind.
        value: Mean over seeds of accuracy (0 to 1) or mean absolute error.
        std: Sample standard deviation over seeds (ddof 1); None below two seeds.
        seeds: Which seeds; none for the final layer.
        interval: 95 % for `value`, over samples and seeds.
        params: Of the branch.
        flops: On its own path, a multiply-add being 2.
        flops_with_passed: The same with the branches of its series at earlier cuts; None for the
            final layer, which belongs to no series.
        acceleration: FLOPs of the whole backbone divided by `flops`.
        ms: Measured milliseconds on its own path (mean over seeds), if measured.
        ms_with_passed: The same with the branches of its series at earlier cuts.
        practical: False when a cheaper exit of the same kind, or the final layer if cheaper, is
            at least as good (paper, section 2.1); for the final layer, when any exit is.
    """

    cut: str
    branch: str
    kind: str
    series: str
    value: float
    std: float | None
    seeds: tuple[int, ...]
    interval: Interval
    params: int
    flops: int
    flops_with_passed: int | None
    acceleration: float
    ms: float | None
    ms_with_passed: float | None
    practical: bool


@dataclass(frozen=True)
class PairedDifference:
    """A branch minus the baseline at the same cut: same samples, same seeds.

    Attributes:
        cut: Where both sit.
        branch: Label of the branch.
        kind: Its kind.
        baseline: Label of the baseline.
        baseline_kind: Its kind.
        difference: In the measure's unit: a share for accuracy (0.01 is one point).
        interval: 95 %, over samples and seeds.
        seeds: The seeds that both have.
    """

    cut: str
    branch: str
    kind: str
    baseline: str
    baseline_kind: str
    difference: float
    interval: Interval
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every branch, the final layer, the paired differences and the rivals; prints as tables.

    Attributes:
        measure: What the values are.
        samples: How many samples they are over.
        rows: One per cut and branch, by cut.
        final: The final layer.
        differences: One per branch and baseline at the same cut.
        rivals: The static rivals and how exits fare against them.
        notes: How to read the numbers.
    """

    measure: Measure
    samples: int
    rows: tuple[BranchRow, ...]
    final: BranchRow
    differences: tuple[PairedDifference, ...]
    rivals: tuple[RivalRow, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; an acceleration without bound is None."""
        name = self.measure.name.lower()
        return {
            "measure": name,
            "samples": self.samples,
            "rows": [_row_json(row, name) for row in self.rows],
            "final": _row_json(self.final, name),
            "differences": [_with_bounds(asdict(item)) for item in self.differences],
            "rivals": [_rival_json(row, name) for row in self.rivals],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        parts = [self._branch_table()]
        if self.differences:
            parts.append(self._difference_table())
        if self.rivals:
            parts.append(self._rival_table())
        return "\n\n".join([*parts, "\n".join(self.notes)])

    def _branch_table(self) -> str:
        rows = (*self.rows, self.final)
        unit, (own, passed) = scaled_flops(
            [row.flops for row in rows], [row.flops_with_passed or row.flops for row in rows]
        )
        timed = self.final.ms is not None
        head = ["exit", "branch", measure_head(self.measure), "seeds", "params", unit]
        head += ["with passed", "acceleration", *(["ms"] if timed else []), ""]
        lines = [
            [
                row.cut,
                row.branch,
                mean_text(self.measure, row),
                str(len(row.seeds)) if row.seeds else "",
                f"{row.params:,}" if row.seeds else "",
                own[place],
                passed[place] if row.flops_with_passed is not None else "",
                f"{row.acceleration:.2f}x",
                *([f"{row.ms:.2f}"] if timed else []),
                "" if row.practical else "impractical",
            ]
            for place, row in enumerate(rows)
        ]
        return text_table(head, lines, left=2)

    def _difference_table(self) -> str:
        head = ["exit", "paired difference", difference_head(self.measure), "95 % interval"]
        lines = [
            [
                item.cut,
                f"{item.branch} minus {item.baseline}",
                self.measure.difference_text(item.difference),
                difference_interval_text(self.measure, item.interval),
            ]
            for item in self.differences
        ]
        return text_table(head, lines, left=2)

    def _rival_table(self) -> str:
        unit, (flops,) = scaled_flops([row.rival.flops for row in self.rivals])
        head = ["static rival", "how", measure_head(self.measure), unit]
        lines = [
            [row.rival.name, row.rival.note, self.measure.text(row.rival.value), own]
            for row, own in zip(self.rivals, flops, strict=True)
        ]
        return text_table(head, lines, left=2)


def kind_name(kind: str) -> str:
    """A kind of branch as texts call it."""
    return _KIND_NAMES.get(kind, kind)


def measure_head(measure: Measure) -> str:
    """Head of a column of values."""
    return f"{measure.name} {measure.unit}".strip()


def difference_head(measure: Measure) -> str:
    """Head of a column of differences."""
    return "points" if measure.higher_is_better else measure.name


def mean_text(measure: Measure, row: BranchRow) -> str:
    """Mean and spread over seeds as tables print them; the final layer has no spread."""
    if not row.seeds:
        return measure.text(row.value)
    return f"{measure.text(row.value)} ± {'n/a' if row.std is None else measure.text(row.std)}"


def difference_interval_text(measure: Measure, interval: Interval) -> str:
    """The interval of a difference as tables print it."""
    low, high = measure.difference_text(interval.low), measure.difference_text(interval.high)
    return f"{low} to {high}"


def _row_json(row: BranchRow, measure: str) -> dict[str, Any]:
    plain = _with_bounds(asdict(row))
    plain[measure] = plain.pop("value")
    plain["acceleration"] = finite_or_none(row.acceleration)
    return plain


def _rival_json(row: RivalRow, measure: str) -> dict[str, Any]:
    plain = row.rival.as_json()
    plain[measure] = plain.pop("value")
    plain["interval"] = _bounds(row.interval)
    plain["duels"] = [_with_bounds(asdict(duel)) for duel in row.duels]
    return plain


def _with_bounds(plain: dict[str, Any]) -> dict[str, Any]:
    if plain["interval"] is not None:
        plain["interval"] = [plain["interval"]["low"], plain["interval"]["high"]]
    return plain


def _bounds(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
