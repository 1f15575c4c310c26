"""Verbs around training: demo, cuts, train, evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from offramp.allocator import keep_freed_memory
from offramp.cli import policies
from offramp.cli.notices import note
from offramp.cli.showing import (
    RESUMES,
    STARTS_OVER,
    AsJson,
    BackboneFile,
    Device,
    RunFolder,
    Threads,
    check_usage,
    progress_bars,
    show,
    stopping,
)
from offramp.cli.streams import put
from offramp.errors import NoPolicyError


@stopping(RESUMES)
def demo(
    out: Annotated[Path, typer.Option(help="Run folder; created if it does not exist.")] = Path(
        "runs/demo"
    ),
    pictures: Annotated[int, typer.Option(help="Test pictures shown one by one.", min=0)] = 4,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value; overrides a value of the demo's plan."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Train exits on the shipped backbone and pictures, calibrate, classify a few pictures."""
    from offramp.run import demo as story
    from offramp.run import steps

    keep_freed_memory()
    plan = story.demo_plan(settings or ())
    with progress_bars() as progress:
        result = steps.train(plan, out, device=device, threads=threads, progress=progress)
    show(result, as_json=False)
    note(result.work_done)
    put("\nThresholds with a certified accuracy, as `offramp calibrate` finds them:\n")
    try:
        policies.calibrate(out, max_drop=[0.02])
    except NoPolicyError as error:  # with fewer pictures than the demo's
        put(str(error))
    for one in story.answers(result, pictures):
        put(f"\n{one}")


def cuts(
    backbone: Annotated[
        str | None, typer.Argument(help="torchvision:NAME, timm:NAME, paper:resnet152 ...")
    ] = None,
    backbone_file: BackboneFile = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--input", help="CxHxW, default 3x224x224; repeat for several inputs."),
    ] = None,
    suggest: Annotated[
        str | None,
        typer.Option(help="Number of cuts to suggest, or shares of the FLOPs such as 0.2,0.5."),
    ] = None,
    leaf: Annotated[
        list[str] | None,
        typer.Option(help="Class of modules to keep whole where tracing fails; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the places where a backbone can be cut, with their shapes and costs."""
    if (backbone is None) == (backbone_file is None):
        raise typer.BadParameter("give a backbone's name, or --backbone file.py:function")
    for text in size or ():
        check_usage("--input", text, r"\d+(x\d+)*", "3x224x224")
    check_usage("--suggest", suggest or "3", r"\d+|\d*\.\d+(,\d*\.\d+)*", "3, or 0.2,0.5")
    from offramp.survey import survey_backbone

    inputs = size or ["3x224x224"]
    show(survey_backbone(backbone, backbone_file, inputs, suggest, leaf or ()), as_json)


@stopping(RESUMES)
def train(
    plan: Annotated[Path, typer.Argument(help="A YAML plan.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; a run in it is resumed or extended. Default: runs/PLAN."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; overrides a value of the plan.")
    ] = None,
    backbone_file: BackboneFile = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of taps that runs share. Default: work/cache in the run."),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Train every branch of a plan on the frozen backbone and evaluate the run."""
    from offramp.run.plan import load_plan

    loaded = load_plan(plan, settings or ())
    from offramp.run import steps  # after the plan, so that a mistake in it is reported at once

    keep_freed_memory()
    with progress_bars() as progress:
        result = steps.train(
            loaded,
            out or Path("runs") / plan.stem,
            backbone_file=backbone_file,
            cache=cache,
            device=device,
            threads=threads,
            progress=progress,
        )
    show(result, as_json)
    note(result.work_done)


@stopping(STARTS_OVER)
def evaluate(
    folder: RunFolder,
    backbone_file: BackboneFile = None,
    device: Device = "cpu",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Answer the data splits again with a saved model; replace outputs, table and report."""
    from offramp.run import steps

    keep_freed_memory()
    with progress_bars() as progress:
        result = steps.evaluate(
            folder,
            backbone_file=backbone_file,
            device=device,
            threads=threads,
            progress=progress,
        )
    show(result, as_json)
