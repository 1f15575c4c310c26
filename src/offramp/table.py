"""Table: heads and rows of text, for the terminal and for the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

Column = tuple[str, Sequence[str]]
"""A head and its texts, one per row."""


@dataclass(frozen=True)
class Table:
    """Rows under a head; `str` gives it as plain text.

    Attributes:
        head: Heads of the columns.
        rows: Texts of each row, one per column.
        title: Title, which plain text prints above the head.
        caption: Caption on a page; the title if left out.
        left: Number of columns, from the first, that are aligned to the left.
        page_only: Heads of columns that are shown on a page but not in a terminal.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    left: int = 1
    page_only: Sequence[str] = ()

    @classmethod
    def of(cls, *columns: Column, **settings: Any) -> Self:
        """A table from columns, each a head and its texts; one without texts is left out."""
        given = [(head, texts) for head, texts in columns if texts]
        rows = list(zip(*(texts for _, texts in given), strict=True))
        return cls([head for head, _ in given], rows, **settings)

    def __str__(self) -> str:
        shown = [place for place, head in enumerate(self.head) if head not in self.page_only]
        lines = [[line[place] for place in shown] for line in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        text = [
            "  ".join(
                cell.ljust(width) if place < self.left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*([self.title] if self.title else []), *text])


def scaled_flops(*columns: Sequence[float]) -> tuple[str, list[list[str]]]:
    """A unit that fits the largest of the FLOPs, and all columns of them in it."""
    most = max(max(column) for column in columns)
    size, unit = next(
        ((size, unit) for size, unit in ((1e9, "GFLOPs"), (1e6, "MFLOPs")) if most >= size),
        (1.0, "FLOPs"),
    )
    digits = 0 if size == 1.0 else 2 if most < 100 * size else 1
    return unit, [[f"{value / size:,.{digits}f}" for value in column] for column in columns]


def scaled_costs(unit: str, costs: Sequence[float]) -> tuple[str, list[str]]:
    """The unit that costs in `flops` or `ms` print in, and the costs."""
    if unit == "ms":
        return "ms", [f"{cost:.2f}" for cost in costs]
    name, (texts,) = scaled_flops(costs)
    return name, texts


def bytes_text(num_bytes: int) -> str:
    """A number of bytes with a unit."""
    if num_bytes >= 10**9:
        return f"{num_bytes / 10**9:.1f} GB"
    return f"{num_bytes / 10**6:.3g} MB" if num_bytes >= 10**6 else f"{num_bytes:,} bytes"


def counted(number: int, noun: str) -> str:
    """A number of things, such as `1 cluster` or `1,200 clusters`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
