"""The verbs export and bench: write a bundle of a finished run, and measure one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.showing import (
    AsJson,
    BackboneFile,
    DataFile,
    DataRoot,
    Engine,
    Precision,
    RunFolder,
    progress_bars,
    show,
)
from offramp.errors import ExtraError
from offramp.table import counted

if TYPE_CHECKING:
    from offramp.bundle import Bundle
    from offramp.runtime.bench import Bench


def export(
    run: RunFolder,
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="The folder to write; an older bundle is replaced."),
    ],
    engines: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="Compare and time the graphs in this engine; repeatable.",
            show_default="onnxruntime",
        ),
    ] = None,
    backbone_file: BackboneFile = None,
    data_file: DataFile = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle of a run, which answers without torch.

    It holds an ONNX graph for each stage and branch, each compared with the run before it is
    written.
    """
    from offramp.run.exported import export_run

    with progress_bars() as progress:
        found = export_run(
            run,
            bundle,
            backbone_file=backbone_file,
            data_file=data_file,
            data_root=data_root,
            engines=engines or ["onnxruntime"],
            progress=progress,
        )
    show(Exported(found), as_json)


def bench(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle that `offramp export` wrote.")
    ],
    engine: Engine = "onnxruntime",
    precision: Precision = "fp32",
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of CPU threads.", show_default="one for each core"),
    ] = None,
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            help="Size of batches to measure the throughput with; repeatable.",
            show_default="1, 2, 4, 8, 16 and 32",
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of rounds; everything is timed in each.")
    ] = 30,
    cold: Annotated[
        bool,
        typer.Option(help="Measure first answers and memory too, each in a new process."),
    ] = True,
    save: Annotated[
        bool, typer.Option("--save", help="Store the times of the graphs in the bundle.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw exits and smaller static models: a .png or .svg file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure on this machine whether the exits of a bundle pay."""
    from offramp.runtime.bench import BATCHES, bench_bundle

    draw = None if plot is None else _drawing(plot)
    with progress_bars() as progress:
        found = bench_bundle(
            bundle,
            engine=engine,
            precision=precision,
            threads=threads,
            batches=batches or BATCHES,
            repeats=repeats,
            cold=cold,
            save=save,
            progress=progress,
        )
    if draw is not None:
        draw(found)
    show(found, as_json)


def _drawing(file: Path) -> "Callable[[Bench], None]":
    """What draws a bench into a file; refused before anything is measured if it cannot."""
    from offramp.storage.atomic import write_bytes

    if file.suffix.lower() not in (".png", ".svg"):
        raise typer.BadParameter(
            f"{file} ends in neither .png nor .svg; give a name that does", param_hint="--plot"
        )
    try:
        from offramp.report.bench_figure import plot_bench
        from offramp.report.style import png_bytes, svg_bytes
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"--plot needs {error.name}, which is not installed. Install it with: "
            "pip install 'offramp[train]'"
        ) from error
    content = svg_bytes if file.suffix.lower() == ".svg" else png_bytes
    return lambda found: write_bytes(file, content(plot_bench(found)))


@dataclass(frozen=True)
class Exported:
    """Result of `offramp export`."""

    bundle: "Bundle"

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        manifest = self.bundle.manifest
        return {
            "bundle": self.bundle.place,
            "exits": list(manifest.facts.names),
            "parity": [each.model_dump(mode="json") for each in manifest.parity],
            "times": [each.model_dump(mode="json") for each in manifest.times],
        }

    def __str__(self) -> str:
        manifest = self.bundle.manifest
        lines = [
            f"{each.engine}: differs from the model by at most {each.difference:.1g} of a tensor's "
            f"greatest absolute value, on {each.samples} {each.inputs} samples "
            f"({each.tolerance:g} is allowed)"
            for each in manifest.parity
        ]
        stages, branches = len(manifest.stages), len(manifest.branches)
        graphs = f"{counted(stages, 'stage')} and {branches} branch{'es' * (branches != 1)}"
        return "\n".join([*lines, f"{graphs}, checked: {self.bundle.place}"])
