"""Comparison: every branch over its seeds, paired differences and static rivals, as one value."""

from dataclasses import dataclass
from typing import Any

from offramp.evaluation.intervals import Interval
from offramp.evaluation.rows import (
    BranchRow,
    FailedBranch,
    PairedDifference,
    RivalDifference,
    RivalRow,
    failure_texts,
    kind_name,
)
from offramp.evaluation.tradeoff import factor_text
from offramp.table import Table, scaled_flops
from offramp.task import Measure


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every branch, the final layer, the paired differences and the rivals; prints as tables.

    Attributes:
        measure: What the values are.
        samples: How many samples they are over.
        cuts: Names of all cuts, in the order of the backbone.
        rows: One per cut and branch, by cut.
        final: The final layer.
        differences: One per branch and baseline at the same cut.
        rivals: The static rivals, and the exits that cost no more.
        failed: Branches of which no trial succeeded.
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
        """Plain values for `json.dumps`; an acceleration without bound is None."""
        return {
            "measure": self.measure.name,
            "samples": self.samples,
            "rows": [row.as_json() for row in self._by_cut()],
            "final": self.final.as_json(),
            "differences": [item.as_json() for item in self.differences],
            "rivals": [row.as_json() for row in self.rivals],
            "notes": list(self.notes),
        }

    def tables(self) -> list[Table]:
        """The branches, and where there are any the differences and the rivals."""
        tables = [self._branch_table()]
        if self.differences:
            tables.append(self._difference_table())
        if self.rivals:
            tables.append(self._rival_table())
        return tables

    def verdict(self) -> tuple[str, ...]:
        """What the intervals show, in sentences that follow from the numbers and nothing else.

        One per paired difference, impractical exit, static rival and failed trial.
        """
        return (
            *(self._difference_sentence(item) for item in self.differences),
            *self._impractical_sentences(),
            *(self._rival_sentence(row) for row in self.rivals),
            *(
                f"{kind_name(row.kind)} ({row.branch}) at {row.cut} {text}."
                for row in self._by_cut()
                for text in failure_texts(row.failed)
            ),
        )

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables()), "\n".join(self.notes)])

    def _by_cut(self) -> list[BranchRow | FailedBranch]:
        return sorted((*self.rows, *self.failed), key=lambda row: self.cuts.index(row.cut))

    def _branch_table(self) -> Table:
        measured = (*self.rows, self.final)
        unit, (own, passed) = scaled_flops(
            [row.flops for row in measured],
            [row.flops_with_passed or row.flops for row in measured],
        )
        timed = self.final.ms is not None
        head = ["exit", "branch", self.measure.head, "95 % interval", "seeds", "params", unit]
        head += ["with passed", "acceleration", *(["ms"] if timed else []), ""]
        lines: dict[BranchRow | FailedBranch, list[str]] = {
            row: [
                row.cut,
                row.branch,
                row.value_text(self.measure),
                row.interval.text(self.measure),
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
        rows = [lines[row] for row in (*self._by_cut(), self.final)]
        caption = "Every branch, mean ± standard deviation over seeds"
        return Table(head, rows, caption=caption, left=2, page_only=("95 % interval",))

    def _difference_table(self) -> Table:
        head = ["exit", "paired difference", self.measure.difference_head, "95 % interval", "seeds"]
        rows = [
            [
                item.cut,
                f"{item.branch} minus {item.baseline}",
                self.measure.difference_text(item.difference),
                item.interval.difference_text(self.measure),
                str(len(item.seeds)),
            ]
            for item in self.differences
        ]
        caption = "Paired differences: same samples, same seeds"
        return Table(head, rows, caption=caption, left=2, page_only=("seeds",))

    def _rival_table(self) -> Table:
        unit, (flops,) = scaled_flops([row.rival.flops for row in self.rivals])
        head = ["static rival", "how", self.measure.head, "95 % interval", unit]
        rows = [
            [
                row.rival.name,
                row.rival.note,
                self.measure.text(row.rival.value),
                row.interval.text(self.measure) if row.interval else "",
                own,
            ]
            for row, own in zip(self.rivals, flops, strict=True)
        ]
        caption = "Static rivals: no exits, less compute for every sample"
        return Table(head, rows, caption=caption, left=2, page_only=("95 % interval",))

    def _difference_sentence(self, item: PairedDifference) -> str:
        one = f"{kind_name(item.kind)} ({item.branch})"
        other = f"{kind_name(item.baseline_kind)} ({item.baseline})"
        seeds = "1 seed" if len(item.seeds) == 1 else f"{len(item.seeds)} seeds"
        return (
            f"{one} minus {other} at {item.cut}: {self._size(item.difference, item.interval)}, "
            f"{seeds}: {self._finding(kind_name(item.kind), item.interval)}."
        )

    def _impractical_sentences(self) -> list[str]:
        names = [
            f"{kind_name(r.kind)} ({r.branch}) at {r.cut}" for r in self.rows if not r.practical
        ]
        names += [] if self.final.practical else ["The final layer"]
        return [f"{name} is impractical: a cheaper exit is at least as good." for name in names]

    def _rival_sentence(self, row: RivalRow) -> str:
        unit, ((flops,),) = scaled_flops([row.rival.flops])
        name = f"static rival {row.rival.name} ({flops} {unit})"
        if not row.differences:
            return f"No exit is as cheap as the {name}."
        found = "; ".join(self._rival_difference(item, row) for item in row.differences)
        return f"The most expensive exits within the cost of the {name}, minus it: {found}."

    def _rival_difference(self, item: RivalDifference, row: RivalRow) -> str:
        alone = [other.kind for other in row.differences].count(item.kind) == 1
        name = kind_name(item.kind) if alone else item.branch
        size = self._size(item.difference, item.interval)
        return f"{name} at {item.cut} {size}, {self._finding('the exit', item.interval)}"

    def _size(self, difference: float, interval: Interval | None) -> str:
        text = f"{self.measure.difference_text(difference)} {self.measure.difference_head}"
        return text if interval is None else f"{text} [{interval.difference_text(self.measure)}]"

    def _finding(self, name: str, interval: Interval | None) -> str:
        if interval is None:
            return "no interval, so nothing is shown"
        if 0.0 in interval:
            return "no difference shown (the interval includes 0)"
        better = self.measure.better(interval.low, 0.0)
        return f"{name} {'is better' if better else 'is worse'} (the interval excludes 0)"
