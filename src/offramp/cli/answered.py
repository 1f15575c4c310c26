"""What `offramp run` shows: a row for each file, with its answer or its error."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offramp.cli.choosing import Chosen
from offramp.cli.verb import failure
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.answer import Answer


@dataclass(frozen=True)
class Row:
    """A file with its answer, or with the error that it gave."""

    file: str
    answer: "Answer | None" = None
    error: OfframpError | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        if self.answer is None:
            return {"file": self.file, **(failure(self.error) if self.error else {})}
        return {"file": self.file, **self.answer.as_json()}

    def emptied(self) -> "Row":
        """The same without its answer, which has been shown already."""
        return Row(self.file, None, self.error)

    @property
    def absent(self) -> tuple[str, ...]:
        """Inputs that it was answered without."""
        return () if self.answer is None else self.answer.absent

    @property
    def interrupted(self) -> bool:
        """Whether a deadline cut it short."""
        return self.answer is not None and self.answer.interrupted

    @property
    def promised(self) -> bool:
        """Whether a promise covers it."""
        return self.answer is not None and self.answer.promised

    def cells(self) -> list[str]:
        """Cells of a table."""
        if self.answer is None:
            reason = str(self.error).removeprefix(f"{self.file} ")
            return [self.file, reason, *[""] * 5]
        found = self.answer
        return [
            self.file,
            found.text,
            found.exit,
            "" if found.score is None else f"{found.score:.4f}",
            f"{found.total_ms:.1f}",
            f"{found.flops / 1e6:.1f}",
            f"{100 * found.flops_saved:.1f}",
        ]


@dataclass(frozen=True)
class Rows:
    """Result of `offramp run`.

    Attributes:
        rows: The files.
        chosen: The policy.
        lacking: The policies for samples that lack an input.
        exits: Which branch answers at each cut.
        head: That of the column of answers.
    """

    rows: tuple[Row, ...]
    chosen: Chosen
    lacking: tuple[Chosen, ...]
    exits: str
    head: str

    @property
    def failed(self) -> int:
        """Number of files that could not be answered."""
        return sum(row.error is not None for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        answers = [row.as_json() for row in self.rows]
        return {
            "policy": self.chosen.as_json(),
            "policies_without": [each.as_json() for each in self.lacking],
            "branches": self.exits,
            "answers": answers,
            "failed": self.failed,
        }

    def __str__(self) -> str:
        from offramp.table import Table

        head = ["file", self.head, "exit", "score", "ms", "MFLOPs", "saved %"]
        cells = [row.cells() for row in self.rows]
        if any(row.absent for row in self.rows):
            head.append("without")
            cells = [
                [*own, " and ".join(row.absent)] for own, row in zip(cells, self.rows, strict=True)
            ]
        table = Table(head, cells, left=3)
        count = f"{len(self.rows)} file{'s' * (len(self.rows) != 1)}" + (
            f", {self.failed} not answered" * bool(self.failed)
        )
        lines = [f"{count}; {self.chosen}", *map(str, self.lacking), *self._uncovered()]
        lines += self._cut_short()
        return "\n".join([str(table), *lines, f"branches: {self.exits}"])

    def _cut_short(self) -> list[str]:
        """A line on the answers that a deadline cut short, if there are any."""
        cut = sum(row.interrupted for row in self.rows)
        if not cut:
            return []
        promises = any(policy.promise for policy in self.chosen.policies)
        share = f"{cut} of {len(self.rows)} answers were cut short by the deadline"
        return [f"{share}, so the promise does not cover this stream" if promises else share]

    def _uncovered(self) -> list[str]:
        """A line on the answers without an input that no promise covers, if there are any."""
        some = [row.absent for row in self.rows if row.absent and not row.promised]
        if not some:
            return []
        names = " and ".join(sorted({name for absent in some for name in absent}))
        text = f"{len(some)} answered without {names}, by the exits that need none"
        every = (self.chosen, *self.lacking)
        promises = any(policy.promise for each in every for policy in each.policies)
        return [f"{text}, and not covered by a promise" if promises else text]
