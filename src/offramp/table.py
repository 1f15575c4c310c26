"""Plain-text tables: columns as wide as they must be, numbers to the right."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows under a head, the first `left` columns to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def scaled_flops(*columns: Sequence[float]) -> tuple[str, list[list[str]]]:
    """A unit that fits the largest of the FLOPs, and all columns of them in it."""
    most = max(max(column) for column in columns)
    size, unit = next(
        ((size, unit) for size, unit in ((1e9, "GFLOPs"), (1e6, "MFLOPs")) if most >= size),
        (1.0, "FLOPs"),
    )
    digits = 0 if size == 1.0 else 2 if most < 100 * size else 1
    return unit, [[f"{value / size:,.{digits}f}" for value in column] for column in columns]
