"""The verb run: get answers for picture and sound files from a run and its policy."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from offramp.cli.choosing import Chosen, MaxDisagreement, MaxDrop, MaxRise, PolicyFile, picked
from offramp.cli.notices import note
from offramp.cli.showing import (
    POLICY,
    AsJson,
    AsJsonLines,
    BackboneFile,
    Device,
    RunFolder,
    Threads,
    show,
    show_line,
)
from offramp.cli.streams import piped
from offramp.cli.verb import failure
from offramp.errors import DataError, OfframpError

if TYPE_CHECKING:
    from offramp.answer import Answer
    from offramp.policy import ExitPolicy
    from offramp.run.opened import OpenRun, WhereAbsent


def run(
    folder: RunFolder,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Pictures or sounds, or folders to search for them; - reads names from standard "
            "input, one per line. A network with a second input for sound takes the sound file "
            "of the same name beside each picture.",
        ),
    ],
    absent: Annotated[
        Literal["refuse", "answer"],
        typer.Option(
            help="Where the sound beside a picture is missing: refuse the picture, or answer by "
            "the exits that need no sound."
        ),
    ] = "refuse",
    policy: PolicyFile = None,
    max_drop: MaxDrop = None,
    max_disagreement: MaxDisagreement = None,
    max_rise: MaxRise = None,
    backbone_file: BackboneFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Get answers for pictures or sounds from a run and its policy."""
    from offramp.policy import load_policies
    from offramp.run.opened import open_run

    opened = open_run(folder, backbone_file=backbone_file, device=device, threads=threads)
    if opened.no_files:
        raise DataError(opened.no_files)
    policies = opened.policies if policy is None else load_policies(policy)
    rules = picked(
        policies, max_drop=max_drop, max_disagreement=max_disagreement, max_rise=max_rise
    )
    rule = opened.chosen(rules[0]) if rules else None
    chosen = Chosen((rule,), policy or folder / POLICY) if rule else Chosen((), None)
    if as_json_lines:
        note(str(chosen))
    rows: list[Row] = []
    for name in _files(files, opened.file_endings):
        row = _answered(opened, name, rule, absent)
        if as_json_lines:
            show_line(row.as_json())
        rows.append(row.emptied() if as_json_lines else row)
    if not as_json_lines:
        unit = opened.model.value_name
        head = f"answer ({unit})" if unit else "answer"
        show(Rows(tuple(rows), chosen, opened.model.exits_text, head), as_json)
    if any(row.error for row in rows):
        raise typer.Exit(1)


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
    """Result of `offramp run`; `head` is that of the column of answers."""

    rows: tuple[Row, ...]
    chosen: Chosen
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
        return f"{table}\n{count}; {self.chosen}{self._lacking()}\nbranches: {self.exits}"

    def _lacking(self) -> str:
        """A line on the answers without an input that no promise covers, if there are any."""
        some = [row.absent for row in self.rows if row.absent and not row.promised]
        if not some:
            return ""
        names = " and ".join(sorted({name for absent in some for name in absent}))
        promise = any(policy.promise for policy in self.chosen.policies)
        return f"\n{len(some)} answered without {names}, by the exits that need none" + (
            ", and not covered by the promise" * promise
        )


def _answered(
    opened: "OpenRun", name: str, rule: "ExitPolicy | None", absent: "WhereAbsent"
) -> Row:
    try:
        if Path(name).is_dir():
            raise DataError(
                f"{name} holds no files of the kind that this run answers "
                f"({', '.join(opened.file_endings)}). Name another folder, or the files."
            )
        where = "answer" if rule is not None and rule.without else absent
        return Row(name, opened.run(opened.files_of(name, where), rule))
    except OfframpError as error:
        return Row(name, error=error)


def _files(names: Sequence[str], endings: tuple[str, ...]) -> Iterator[str]:
    """Names of files: those given, those on standard input, and those in folders, sorted.

    The name of a folder without such files is returned as it is.
    """
    for name in names:
        if name == "-":
            lines = piped("file names", "FILE", errors="surrogateescape")
            for line in lines:
                if text := line.rstrip("\r\n"):
                    yield from _files([f"./{text}" if text == "-" else text], endings)
        elif Path(name).is_dir():
            yield from _in_folder(name, endings)
        else:
            yield name


def _in_folder(folder: str, endings: tuple[str, ...]) -> list[str]:
    found = sorted(
        os.path.join(place, name)  # noqa: PTH118  (as the user spelt it)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(endings) and not name.startswith(".")
    )
    return found or [folder]
