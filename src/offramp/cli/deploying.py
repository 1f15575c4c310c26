"""The verb export: write a bundle of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli.showing import (
    AsJson,
    BackboneFile,
    DataFile,
    DataRoot,
    RunFolder,
    progress_bars,
    show,
)
from offramp.table import counted

if TYPE_CHECKING:
    from offramp.bundle import Bundle


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
