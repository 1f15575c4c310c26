"""The verb run: get answers for picture and sound files from a run and its policy."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from offramp.cli.answered import Row, Rows
from offramp.cli.choosing import Chosen, MaxDisagreement, MaxDrop, MaxRise, PolicyFile, picked
from offramp.cli.notices import note
from offramp.cli.showing import (
    POLICY,
    AsJson,
    AsJsonLines,
    BackboneFile,
    Device,
    Engine,
    Precision,
    RunOrBundle,
    Threads,
    check_for_bundle,
    show,
    show_line,
)
from offramp.cli.streams import piped
from offramp.errors import DataError, ExtraError, OfframpError

if TYPE_CHECKING:
    from offramp.answer import Answer
    from offramp.answering import Opened
    from offramp.answering.sample import WhereAbsent
    from offramp.policy import ExitPolicy


def run(
    folder: RunOrBundle,
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
            help="Where the sound beside a picture is missing: refuse the picture, or answer with "
            "the exits that need no sound."
        ),
    ] = "refuse",
    policy: PolicyFile = None,
    max_drop: MaxDrop = None,
    max_disagreement: MaxDisagreement = None,
    max_rise: MaxRise = None,
    backbone_file: BackboneFile = None,
    device: Device = "cpu",
    engine: Engine = "onnxruntime",
    precision: Precision = "fp32",
    threads: Threads = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="For a bundle: answer each file within this time, with the last exit that can.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_json_lines: AsJsonLines = False,
) -> None:
    """Get answers for pictures or sounds from a run or a bundle."""
    opened = _opened(folder, backbone_file, device, engine, precision, threads)
    ask = _asking(opened, deadline_ms)
    if opened.no_files:
        raise DataError(opened.no_files)
    given = _given(
        opened, policy, max_drop=max_drop, max_disagreement=max_disagreement, max_rise=max_rise
    )
    rule = opened.chosen(given)
    chosen = Chosen((rule,), policy or folder / POLICY) if rule else Chosen((), None)
    lacking = _of_lacking(folder, opened, given) if absent == "answer" else ()
    if as_json_lines:
        note("\n".join(map(str, [chosen, *lacking])))
    rows: list[Row] = []
    for name in _files(files, opened.file_endings, opened.endings_beside):
        row = _answered(opened, name, given, absent, ask)
        if as_json_lines:
            show_line(row.as_json())
        rows.append(row.emptied() if as_json_lines else row)
    if not as_json_lines:
        unit = opened.facts.value_name
        head = f"answer ({unit})" if unit else "answer"
        show(Rows(tuple(rows), chosen, lacking, opened.facts.exits_text, head), as_json)
    if any(row.error for row in rows):
        raise typer.Exit(1)


def _opened(
    folder: Path,
    backbone_file: str | None,
    device: str,
    engine: str,
    precision: str,
    threads: int | None,
) -> "Opened":
    """A bundle in its engine, or a run with torch."""
    from offramp.storage.manifest import is_bundle

    if is_bundle(folder):
        check_for_bundle(backbone_file, device)
        from offramp.runtime.runtime import Runtime

        return Runtime(folder, engine=engine, precision=precision, threads=threads)
    if (engine, precision) != ("onnxruntime", "fp32"):
        raise typer.BadParameter(
            "--engine and --precision are for a bundle of `offramp export`; a run answers with "
            "torch on --device"
        )
    from offramp.run.opened import open_run

    return open_run(folder, backbone_file=backbone_file, device=device, threads=threads)


def _asking(opened: "Opened", deadline_ms: float | None) -> "Callable[..., Answer]":
    """How a sample is answered: by a deadline, which only a bundle knows, or without one."""
    from offramp.runtime.runtime import Runtime

    if deadline_ms is None:
        return opened.run
    if not isinstance(opened, Runtime):
        raise typer.BadParameter(
            "--deadline-ms is for a bundle, and this is a run. Export it first: offramp export "
            "RUN BUNDLE"
        )
    if opened.measured_elsewhere:
        note(opened.measured_elsewhere)
    opened.warm_up()
    return partial(opened.run, deadline_ms=deadline_ms)


def _given(
    opened: "Opened", file: Path | None, **limits: float | None
) -> "ExitPolicy | float | None":
    """The policy of a file that fits the limit, or else the limit that picks one of the run's."""
    from offramp.policy import load_policies

    picks = picked(opened.policies if file is None else load_policies(file), **limits)
    if file is not None:
        return picks[0]
    return next((limit for limit in limits.values() if limit is not None), None)


def _of_lacking(
    folder: Path, opened: "Opened", given: "ExitPolicy | float | None"
) -> tuple[Chosen, ...]:
    """The run's policies for samples that lack an input, unless one was given for all samples."""
    from offramp.policy import ExitPolicy
    from offramp.run.names import lacking

    if isinstance(given, ExitPolicy):
        return ()
    found = []
    for names in opened.policies_without:
        policy = opened.chosen(given, names)
        if policy is not None and policy.without:
            number = opened.facts.input_names.index(names[0])
            found.append(Chosen((policy,), folder / lacking(POLICY, number)))
    return tuple(found)


def _answered(
    opened: "Opened",
    name: str,
    given: "ExitPolicy | float | None",
    absent: "WhereAbsent",
    ask: "Callable[..., Answer]",
) -> Row:
    from offramp.policy import ExitPolicy

    try:
        if Path(name).is_dir():
            raise DataError(
                f"{name} holds no files of the kind that this run answers "
                f"({', '.join(opened.file_endings)}). Name another folder, or the files."
            )
        leaves_out = isinstance(given, ExitPolicy) and given.without
        return Row(name, ask(opened.files_of(name, "answer" if leaves_out else absent), given))
    except ExtraError:  # the same for every file
        raise
    except OfframpError as error:
        return Row(name, error=error)


def _files(
    names: Sequence[str], endings: tuple[str, ...], beside: tuple[str, ...]
) -> Iterator[str]:
    """Names of files: those given, those on standard input, and those in folders, sorted.

    A note counts the files in folders that end otherwise, unless they may lie `beside`. The name of
    a folder without such files is returned as it is.
    """
    for name in names:
        if name == "-":
            lines = piped("file names", "FILE", errors="surrogateescape")
            for line in lines:
                if text := line.rstrip("\r\n"):
                    yield from _files([f"./{text}" if text == "-" else text], endings, beside)
        elif Path(name).is_dir():
            yield from _in_folder(name, endings, beside)
        else:
            yield name


def _in_folder(folder: str, endings: tuple[str, ...], beside: tuple[str, ...]) -> list[str]:
    every = sorted(
        os.path.join(place, name)  # noqa: PTH118  (as the user spelt it)
        for place, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    found = [name for name in every if name.lower().endswith(endings)]
    others = Counter(
        Path(name).suffix or Path(name).name
        for name in every
        if not name.lower().endswith(endings + beside)
    )
    if found and others:
        counts = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
        note(f"{folder}: these were not read, since they are not {'/'.join(endings)}: {counts}")
    return found or [folder]
