"""Rows: a text file with named columns, CSV or TSV, in which every fault has its line."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from offramp.data.splits import first_few
from offramp.errors import DataError
from offramp.storage.text import decode_text
from offramp.table import counted

_DELIMITERS = ",;\t"

Fault = tuple[int, str]
"""A line of the file, and what is wrong there."""


@dataclass(frozen=True)
class Rows:
    """N rows of text, without blank ones.

    Attributes:
        file: What they were read from.
        header: Names of the columns.
        lines: (N,) line of the file on which each row begins.
        cells: (N,) the cells of each row, as many as the header has.
        faults: What is wrong with rows that have a different number of cells; they are left out.
    """

    file: Path
    header: list[str]
    lines: list[int]
    cells: list[list[str]]
    faults: list[Fault]

    def column(self, name: str) -> list[str]:
        """The cells (N,) of one column."""
        place = self.header.index(name)
        return [row[place] for row in self.cells]

    def refuse(self, faults: Iterable[Fault], advice: str) -> None:
        """Refuse rows that cannot be used.

        Raises:
            DataError: There are any, here or in `faults`; it lists the first few with their lines.
        """
        by_line: defaultdict[int, list[str]] = defaultdict(list)
        for line, text in [*self.faults, *faults]:
            by_line[line].append(text)
        if by_line:
            lines = [f"line {line}: {'; '.join(by_line[line])}" for line in sorted(by_line)]
            raise DataError(
                f"{len(lines)} of {len(self.cells) + len(self.faults)} rows of {self.file} cannot "
                f"be used:\n{first_few(lines)}\n{advice}"
            )


def read_rows(file: Path) -> Rows:
    """The rows of a file whose first row names the columns, without blanks around the cells.

    Cells are separated by the comma, semicolon or tab that is most frequent in the first line.

    Raises:
        DataError: The file cannot be read, is not text with quotes in pairs, or has no rows.
    """
    found = list(_numbered(file, _text(file)))
    if len(found) < 2:
        raise DataError(
            f"{file} has no rows. Its first line should name the columns, and each further line "
            "one file."
        )
    (_, header), *rows = found
    good = [(line, cells) for line, cells in rows if len(cells) == len(header)]
    faults = [
        (
            line,
            f"{counted(len(cells), 'cell')}, but the first line names "
            f"{counted(len(header), 'column')}",
        )
        for line, cells in rows
        if len(cells) != len(header)
    ]
    return Rows(file, header, [line for line, _ in good], [cells for _, cells in good], faults)


def _text(file: Path) -> str:
    try:
        return decode_text(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}. Check `file`.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}. Save it as UTF-8.") from error


def _numbered(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, and the line it begins on."""
    first, _, _ = text.partition("\n")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file} cannot be read from line {line} on: {error}. Check the quotes there."
        ) from error
