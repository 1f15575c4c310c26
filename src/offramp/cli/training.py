"""Verbs around training: demo, cuts, finetune, train, runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer

from offramp.allocator import keep_freed_memory
from offramp.cli import policies
from offramp.cli.notices import note
from offramp.cli.showing import (
    LEAVES_NOTHING,
    RESUMES,
    AsJson,
    BackboneFile,
    DataFile,
    DataRoot,
    Device,
    Settings,
    Shown,
    Threads,
    check_usage,
    progress_bars,
    show,
    stopping,
)
from offramp.cli.streams import put
from offramp.errors import NoPolicyError

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only check the plan and estimate disk space, memory and time."),
]


@stopping(RESUMES)
def demo(
    out: Annotated[
        Path, typer.Option(metavar="RUN", help="Run folder; an interrupted run is resumed.")
    ] = Path("runs/demo"),
    pictures: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Number of test pictures to classify one by one."),
    ] = 4,
    settings: Settings = None,
    dry_run: DryRun = False,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train and calibrate exits on the shipped network and pictures."""
    from offramp.run import demo as story
    from offramp.run import steps
    from offramp.run.exported import export_run
    from offramp.run.forecast import Forecast, forecast_run
    from offramp.run.results import RunResult

    plan = story.demo_plan(settings or ())
    work: Callable[..., Forecast | RunResult] = forecast_run if dry_run else steps.train
    result = _carried_out(work, plan, out, as_json=False, device=device, threads=threads)
    if not isinstance(result, RunResult):
        return
    put("\nThresholds with a certified accuracy, as `offramp calibrate` finds them:\n")
    try:
        policies.calibrate(out, max_drop=[0.02])
    except NoPolicyError as error:  # with fewer pictures than the demo's
        put(str(error))
    for picture in story.answers(result, pictures):
        put(f"\n{story.told(picture)}")
    bundle = out.with_name(f"{out.name}-bundle")
    put(f"\nThe same model as a bundle, {bundle}, which `offramp export` writes:\n")
    with progress_bars() as progress:
        export_run(out, bundle, progress=progress)
    put("\nThe pictures again, answered from the bundle without torch and by deadlines:\n")
    put(str(story.in_time(result, bundle, pictures)))


def cuts(
    backbone: Annotated[
        str | None,
        typer.Argument(
            metavar="BACKBONE",
            help="The backbone's name: torchvision:resnet18, timm:NAME, paper:NAME.",
        ),
    ] = None,
    backbone_file: BackboneFile = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="Size of one input; repeat for several inputs.",
            show_default="3x224x224",
        ),
    ] = None,
    suggest: Annotated[
        str | None,
        typer.Option(
            metavar="N|SHARES",
            help="Suggest N cuts, or cuts at these shares of the FLOPs, such as 0.2,0.5.",
        ),
    ] = None,
    leaf: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Do not trace into modules of this class, if tracing fails there; repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the places where a backbone can be cut, with their costs."""
    if (backbone is None) == (backbone_file is None):
        raise typer.BadParameter("give a backbone's name, or --backbone file.py:function")
    for text in size or ():
        check_usage("--input", text, r"\d+(x\d+)*", "3x224x224")
    check_usage("--suggest", suggest or "3", r"\d+|\d*\.\d+(,\d*\.\d+)*", "3, or 0.2,0.5")
    from offramp.survey import survey_backbone

    inputs = size or ["3x224x224"]
    show(survey_backbone(backbone, backbone_file, inputs, suggest, leaf or ()), as_json)


@stopping(RESUMES)
def finetune(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A YAML file that says what to finetune.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Backbone folder; an interrupted finetuning in it is resumed.",
            show_default="runs/NAME-OF-THE-PLAN",
        ),
    ] = None,
    settings: Settings = None,
    backbone_file: BackboneFile = None,
    data_file: DataFile = None,
    data_root: DataRoot = None,
    dry_run: DryRun = False,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train a whole backbone for new data; `train` then adds exits."""
    from offramp.run.finetune_plan import load_finetune_plan

    loaded = load_finetune_plan(plan, settings or ())
    from offramp.run import finetuning  # after the plan, so that a mistake is reported at once
    from offramp.run.finetune_forecast import forecast_finetuning

    _carried_out(
        forecast_finetuning if dry_run else finetuning.finetune,
        loaded,
        out or Path("runs") / plan.stem,
        as_json,
        backbone_file=backbone_file,
        data_file=data_file,
        data_root=data_root,
        device=device,
        threads=threads,
    )


@stopping(RESUMES)
def train(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A YAML file that says what to train.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run folder; a run in it is resumed or extended.",
            show_default="runs/NAME-OF-THE-PLAN",
        ),
    ] = None,
    settings: Settings = None,
    backbone_file: BackboneFile = None,
    data_file: DataFile = None,
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for cached taps, the activations at the cuts; runs can share it.",
            show_default="RUN/work/cache",
        ),
    ] = None,
    dry_run: DryRun = False,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train the branches of a plan, then evaluate the run."""
    from offramp.run.plan import load_plan

    loaded = load_plan(plan, settings or ())
    from offramp.run import steps  # after the plan, so that a mistake in it is reported at once
    from offramp.run.forecast import forecast_run

    _carried_out(
        forecast_run if dry_run else steps.train,
        loaded,
        out or Path("runs") / plan.stem,
        as_json,
        backbone_file=backbone_file,
        data_file=data_file,
        data_root=data_root,
        cache=cache,
        device=device,
        threads=threads,
    )


class _Done(Shown, Protocol):
    """A result, or a forecast."""

    @property
    def work_done(self) -> str:
        """Sentence on what was done."""


_Result = TypeVar("_Result", bound=_Done)


def _carried_out(
    work: Callable[..., _Result], plan: object, out: Path, as_json: bool, **options: object
) -> _Result:
    """Do what a plan says, or foresee it, and show the result."""
    keep_freed_memory()
    with progress_bars() as progress:
        result = work(plan, out, progress=progress, **options)
    show(result, as_json)
    note(result.work_done)
    return result


@stopping(LEAVES_NOTHING)
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to look, up to three folders deep.")
    ] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, finished or not."""
    from offramp.run.listing import list_runs

    show(list_runs(folder), as_json)
