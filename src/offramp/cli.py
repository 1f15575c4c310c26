"""The command line: one function per verb; each parses, calls one function, shows its value."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import offramp
from offramp.allocator import keep_freed_memory
from offramp.errors import OfframpError
from offramp.progress import Progress

app = typer.Typer(
    help="Early exits for pretrained CNNs: attach, train on the frozen backbone, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_TRAINING_HALF = ("torch", "torchvision", "timm", "einops", "matplotlib", "tensorboard")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]
BackboneFile = Annotated[
    str | None,
    typer.Option("--backbone", help="file.py:function, runs that function to get the nn.Module."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:0 or mps.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of torch; default: torch's own.")]
RunFolder = Annotated[Path, typer.Argument(help="A folder that `offramp train` wrote.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"offramp {offramp.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Early exits for pretrained CNNs: attach, train on the frozen backbone, compare."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder; made where absent.")] = Path("runs/demo"),
    pictures: Annotated[int, typer.Option(help="Test pictures shown one by one.", min=0)] = 4,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, overrides the demo's plan.")
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train exits on the shipped backbone and pictures, then classify a few pictures."""
    from offramp import demo as story
    from offramp import run

    keep_freed_memory()
    plan = story.demo_plan(settings or ())
    with progress_bars() as progress:
        result = run.train(plan, out, device=device, threads=threads, progress=progress)
    show(result, as_json=False)
    for one in story.answers(result, pictures):
        typer.echo(f"\n{one}")


@app.command()
def cuts(
    backbone: Annotated[
        str | None, typer.Argument(help="torchvision:NAME, timm:NAME, paper:resnet152 ...")
    ] = None,
    backbone_file: BackboneFile = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--input", help="CxHxW, 3x224x224 if not given; repeat for several."),
    ] = None,
    suggest: Annotated[
        str | None,
        typer.Option(help="How many cuts to pick, or shares of the FLOPs such as 0.2,0.5."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the places where a backbone can be cut, with their shapes and costs."""
    if (backbone is None) == (backbone_file is None):
        raise typer.BadParameter("give a backbone's name, or --backbone file.py:function")
    for text in size or ():
        _check_usage("--input", text, r"\d+(x\d+)*", "3x224x224")
    _check_usage("--suggest", suggest or "3", r"\d+|\d*\.\d+(,\d*\.\d+)*", "3, or 0.2,0.5")
    from offramp.survey import survey_backbone

    show(survey_backbone(backbone, backbone_file, size or ["3x224x224"], suggest), as_json)


@app.command()
def train(
    plan: Annotated[Path, typer.Argument(help="A YAML plan.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; the same again goes on. Default: runs/PLAN.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, overrides one plan value.")
    ] = None,
    backbone_file: BackboneFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train every branch of a plan on the frozen backbone and evaluate the run."""
    from offramp.plan import load_plan

    loaded = load_plan(plan, settings or ())
    from offramp import run  # after the plan, so that a mistake in it is told at once

    keep_freed_memory()
    with progress_bars() as progress:
        result = run.train(
            loaded,
            out or Path("runs") / plan.stem,
            backbone_file=backbone_file,
            device=device,
            threads=threads,
            progress=progress,
        )
    show(result, as_json)


@app.command()
def evaluate(
    folder: RunFolder,
    backbone_file: BackboneFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Answer the data splits again with a saved model; write outputs, table and report anew."""
    from offramp import run

    keep_freed_memory()
    with progress_bars() as progress:
        result = run.evaluate(
            folder,
            backbone_file=backbone_file,
            device=device,
            threads=threads,
            progress=progress,
        )
    show(result, as_json)


@app.command()
def tradeoff(
    outputs: Annotated[Path, typer.Argument(help="A run folder, or one of its outputs/*.npz.")],
    as_json: AsJson = False,
) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place
    from offramp.outputs import ExitOutputs

    show(place(ExitOutputs.load(_outputs_file(outputs))), as_json)


def _outputs_file(path: Path) -> Path:
    """The test outputs of a run, or the file itself."""
    from offramp.bundle import read_file, read_manifest

    if not path.is_dir():
        return path
    read_file(path, read_manifest(path), "outputs/test.npz")
    return path / "outputs" / "test.npz"


def _check_usage(option: str, text: str, pattern: str, example: str) -> None:
    if re.fullmatch(pattern, text) is None:
        raise typer.BadParameter(f"{text!r} is not such as {example}", param_hint=option)


def show(value: Any, as_json: bool) -> None:
    """Print a value as its own table, or as JSON."""
    typer.echo(json.dumps(value.as_json(), indent=1) if as_json else str(value))


@contextmanager
def _stopped_politely() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on standard error: one per kind of work, with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, Any] = {}
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn())
    with (
        _stopped_politely(),
        Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars,
    ):

        def advance(what: str, done: int, total: int) -> None:
            work = what.partition(":")[0]  # "layer1: epoch 2/15" is one work with many epochs
            if work not in tasks:
                tasks[work] = bars.add_task(what, total=total)
            bars.update(tasks[work], description=what, completed=done, total=total)

        yield advance


def main() -> None:
    """Run the command line: exit code 0 done, 1 an OfframpError, 2 wrong usage, 130 stopped."""
    try:
        app()
    except OfframpError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in _TRAINING_HALF or "--debug" in sys.argv:
            raise
        typer.echo(f"error: this needs {error.name}: pip install 'offramp[train]'", err=True)
        sys.exit(1)
