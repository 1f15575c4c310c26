"""FileTable: files that a CSV file lists with their labels."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Tag, model_validator

from offramp.data.drawing import RandomSplit
from offramp.data.labels import names_of, numbers_of
from offramp.data.listed import ListedFiles
from offramp.data.listing import Listing, check_same_classes
from offramp.data.rows import Fault, Rows, read_rows
from offramp.data.splits import SPLIT_ALIASES, SPLIT_NAMES
from offramp.errors import DataError, KindError
from offramp.preprocess.media import Medium, other_medium

_COLUMNS = ("label", "value", "split", "group", "source")
_LARGEST = float(np.finfo(np.float32).max)


def _form(split: object) -> str:
    return "column" if isinstance(split, str) else "shares"


ColumnOrShares = Annotated[
    Annotated[str, Tag("column")] | Annotated[RandomSplit, Tag("shares")], Discriminator(_form)
]
"""Where splits come from: the name of a column, or the shares to draw."""


class FileTable(ListedFiles):
    """Files listed in a CSV or TSV file: one row for each, the first row names the columns.

    Labels are class names, numbered in the order of their names or of `classes`, or class numbers
    counted from 0.

    Attributes:
        file: The CSV file, UTF-8.
        root: Folder that paths in the file start from; None takes the folder that `file` is in.
        path: Column of the file's path, absolute or below `root`. A file has one row.
        label: Column of the class; `label` if neither this nor `value` is given.
        value: Column of the number to estimate, in place of `label`, for `task: regression`.
        split: Column of the split: train, validation (or val), calibration or test, of which those
            that are missing are drawn as from a folder. Or the shares to draw of all rows.
        group: Column of what a sample belongs to, such as a site, for promises within groups.
        source: Column of what a sample was taken from, such as a film, a recorder or a patient.
            Samples of one source are drawn into one split, and promises count sources, not samples.
    """

    file: Path
    root: Path | None = None
    path: str = "path"
    label: str | None = None
    value: str | None = None
    split: ColumnOrShares = "split"
    group: str | None = None
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _usual_label(cls, given: Any) -> Any:
        if not isinstance(given, dict) or any(given.get(name) for name in ("label", "value")):
            return given
        return {**given, "label": "label"}

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if self.value is not None and (self.label is not None or self.classes is not None):
            other = "classes" if self.label is None else "label"
            raise ValueError(f"`value` is for regression and `{other}` for classes: give one")
        return self

    @property
    @abstractmethod
    def medium(self) -> Medium:
        """What the column `path` should name."""

    @property
    def path_settings(self) -> tuple[str, ...]:
        """The settings that name the column of each input's file."""
        return ("path",)

    def listing(self) -> Listing:
        """See ListedFiles."""
        rows = read_rows(self.file.expanduser())
        cells = self._cells(rows)
        root = (self.root or self.file.parent).expanduser().resolve()
        columns = [_joined(root, cells[name]) for name in self.path_settings]
        paths = columns[0]
        self._check_medium(rows, paths)
        targets, names = self._targets(cells)
        absent = [] if self.on_corrupt == "skip" else [*self._absent(rows, cells, columns)]
        faults = [
            *_blanks(rows, cells),
            *_repeated(rows, cells["path"], paths),
            *absent,
            *_faults_of_splits(rows, cells.get("split", [])),
            *self._faults_of_targets(rows, cells, targets),
        ]
        advice = f"Correct or remove these rows. Paths start from {root} (see `root`)."
        skip = "\nRows without their file are left out with `on_corrupt: skip`." if absent else ""
        rows.refuse(faults, advice + skip)
        given = self._splits(rows, cells, names)
        return Listing(
            rows.file,
            np.array(columns, object).T,
            np.array([_below(root, path) for path in paths], np.str_),
            np.array(targets, np.int64 if self.value is None else np.float32),
            names,
            given,
            groups=_texts(cells, "group"),
            sources=_texts(cells, "source"),
        )

    def _cells(self, rows: Rows) -> dict[str, list[str]]:
        """The cells (N,) of the column that each setting names."""
        given = {name: getattr(self, name) for name in (*self.path_settings, *_COLUMNS)}
        named = {name: column for name, column in given.items() if isinstance(column, str)}
        missing = {name: c for name, c in named.items() if rows.header.count(c) != 1}
        if missing:
            wanted = " and ".join(f"{c!r} (setting `{name}`)" for name, c in missing.items())
            draw = ", or draw the splits at random with `split: {}`" if "split" in missing else ""
            raise DataError(
                f"{rows.file} needs one column {wanted}, and its columns are "
                f"{', '.join(map(repr, rows.header))}. Set the names of the right columns{draw}."
            )
        return {name: rows.column(column) for name, column in named.items()}

    def _check_medium(self, rows: Rows, paths: Sequence[Path]) -> None:
        """Refuse sounds where pictures should be, and the reverse."""
        if other := other_medium(self.medium, paths):
            first = next(path for path in paths if path.suffix.lower() in other.endings)
            raise KindError(
                f"{rows.file} lists {other.noun} files, such as {first.name}, and data of kind "
                f"{self.medium.table!r} reads {self.medium.noun}s. Use `kind: {other.table}`."
            )

    def _absent(
        self, rows: Rows, cells: Mapping[str, list[str]], columns: Sequence[Sequence[Path]]
    ) -> Iterator[Fault]:
        """Faults of files that are not there, column by column."""
        for name, paths in zip(self.path_settings, columns, strict=True):
            for line, cell, path in zip(rows.lines, cells[name], paths, strict=True):
                if cell and not _is_file(path):
                    yield line, f"there is no file {cell}"

    def _targets(
        self, cells: Mapping[str, list[str]]
    ) -> tuple[Sequence[float | None], tuple[str, ...]]:
        """Class number or value of each row, None if it has none, and what these are called."""
        if self.value is not None:
            return [_value(cell) for cell in cells["value"]], (self.value,)
        labels = cells["label"]
        names = names_of([label for label in labels if label], self.classes)
        return numbers_of(labels, names), names

    def _faults_of_targets(
        self, rows: Rows, cells: Mapping[str, list[str]], targets: Sequence[float | None]
    ) -> Iterator[Fault]:
        texts = cells["label" if self.value is None else "value"]
        wrong = "is not a finite number"
        if self.value is None:
            wrong = "is not in `classes`"
            if self.classes is None:
                wrong = (
                    "is not a class number, although other labels are; if the labels are names, "
                    "list all of them in `classes`"
                )
        for line, text, target in zip(rows.lines, texts, targets, strict=True):
            if text and target is None:
                yield line, f"{text!r} {wrong}"

    def _splits(
        self, rows: Rows, cells: Mapping[str, list[str]], names: tuple[str, ...]
    ) -> NDArray[np.str_] | RandomSplit:
        if isinstance(self.split, RandomSplit):
            return self.split
        given = list(map(_split_of, cells["split"]))
        if "train" not in given or not {"validation", "test"} & {*given}:
            raise DataError(
                f"column {self.split!r} of {rows.file} names only {', '.join(sorted({*given}))}. "
                "It should name train and val (calibration and test samples are then drawn from "
                f"val), or the four splits {', '.join(SPLIT_NAMES)}. `split: {{}}` draws them at "
                "random instead."
            )
        if self.classes is None and self.value is None and names:
            held: dict[str, set[str]] = {name: set() for name in SPLIT_NAMES if name in given}
            for name, label in zip(given, cells["label"], strict=True):
                held[name].add(label)
            check_same_classes(rows.file, held)
        return np.array(given, np.str_)


def _blanks(rows: Rows, cells: Mapping[str, list[str]]) -> Iterator[Fault]:
    for name, column in cells.items():
        for line, cell in zip(rows.lines, column, strict=True):
            if not cell:
                yield line, f"the {name} is empty"


def _joined(root: Path, cells: Sequence[str]) -> list[Path]:
    return [Path(os.path.normpath(root / cell)) for cell in cells]


def _repeated(rows: Rows, cells: Sequence[str], paths: Sequence[Path]) -> Iterator[Fault]:
    first: dict[Path, int] = {}
    for line, cell, path in zip(rows.lines, cells, paths, strict=True):
        if cell and first.setdefault(path, line) != line:
            yield line, f"{cell} is on line {first[path]} already"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long, or a folder that may not be read
        return False


def _faults_of_splits(rows: Rows, cells: Sequence[str]) -> Iterator[Fault]:
    for line, cell in zip(rows.lines, cells, strict=False):
        if cell and _split_of(cell) not in SPLIT_NAMES:
            yield line, f"no split is called {cell!r}"


def _split_of(cell: str) -> str:
    return SPLIT_ALIASES.get(cell.lower(), cell.lower())


def _value(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None


def _below(root: Path, path: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _texts(cells: Mapping[str, list[str]], name: str) -> NDArray[np.str_] | None:
    return np.array(cells[name], np.str_) if name in cells else None
