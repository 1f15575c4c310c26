"""What the verbs share: options, files of a run, showing a value, progress bars."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.progress import Progress

if TYPE_CHECKING:
    from offramp.policy import ExitPolicy, PolicyMenu
    from offramp.storage.folder import Contents

POLICY = "policy.json"
"""File of a run's policy or menu, in its folder."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BackboneFile = Annotated[
    str | None,
    typer.Option("--backbone", help="file.py:function; the function returns the nn.Module."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:0 or mps.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads for torch; default: torch's own.")]
RunFolder = Annotated[Path, typer.Argument(help="A folder that `offramp train` wrote.")]


def outputs_file(path: Path, split: str = "test") -> Path | bytes:
    """The outputs of a run on one of its splits as they were stored, or the file itself."""
    from offramp.storage.folder import read_folder
    from offramp.storage.manifest import RUN

    if not path.is_dir():
        return path
    name = f"outputs/{split}.npz"
    return read_folder(path, RUN, [name]).files[name]


def save_policy(
    out: Path | None, run: "Contents | None", policy: "ExitPolicy | PolicyMenu"
) -> Path:
    """Save a policy to `out`, else into the run that it was calibrated on; give its path.

    Raises:
        BundleError: The outputs that it was calibrated on are not the run's any more.
    """
    from offramp.storage.folder import changing
    from offramp.storage.manifest import RUN

    if out is None and run is not None:
        with changing(run.folder, RUN, since=run) as staged:
            policy.save(staged / POLICY)
        return run.folder / POLICY
    path = out or Path(POLICY)
    policy.save(path)
    return path


def check_usage(option: str, text: str, pattern: str, example: str) -> None:
    """Refuse an option's text as wrong usage unless it matches."""
    if re.fullmatch(pattern, text) is None:
        raise typer.BadParameter(f"got {text!r}; give for example {example}", param_hint=option)


def show(value: Any, as_json: bool) -> None:
    """Print a value as its own table, or as JSON."""
    typer.echo(json.dumps(value.as_json(), indent=1) if as_json else str(value))


RESUMES = "stopped; repeat the same command and it resumes"
STARTS_OVER = "stopped; the run folder is intact, and the same command starts over"


@contextmanager
def stopping(says: str) -> Iterator[None]:
    """After Ctrl-C, say on standard error what repeating does, and exit with code 130.

    As a decorator it covers a whole verb, the import of torch included.
    """
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(says, err=True)
        raise typer.Exit(130) from None


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on standard error: one per kind of work, with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, Any] = {}
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn())

    def advance(what: str, done: int, total: int) -> None:
        work = what.partition(":")[0]  # "layer1: epoch 2/15" is one work with many epochs
        if work not in tasks:
            tasks[work] = bars.add_task(what, total=total)
        bars.update(tasks[work], description=what, completed=done, total=total)

    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        yield advance
