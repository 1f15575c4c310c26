"""The verb evaluate: answer the samples again, by a run with torch or by a bundle in its engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from offramp.allocator import keep_freed_memory
from offramp.cli.notices import note
from offramp.cli.showing import (
    STARTS_OVER,
    AsJson,
    BackboneFile,
    DataRoot,
    Device,
    Engine,
    Precision,
    RunOrBundle,
    Threads,
    check_for_bundle,
    progress_bars,
    show,
    stopping,
)
from offramp.errors import ExtraError

if TYPE_CHECKING:
    from offramp.answering import ModelFacts
    from offramp.outputs import ExitOutputs
    from offramp.table import Table

Split = Literal["calibration", "test"]


@stopping(STARTS_OVER)
def evaluate(
    folder: RunOrBundle,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="For a bundle: a plan or a run, whose calibration and test samples are answered; "
            "or a folder with one folder per class, or with such folders in calibration and test. "
            "For a run: FILE:FUNCTION, your Python file, and the function in it that returns the "
            "splits train, validation, calibration and test; a bundle takes one, too.",
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(
            help="For a bundle: answer only this split, which a folder without splits is taken as.",
            show_default="all that there are; calibration for a folder without splits",
        ),
    ] = None,
    backbone_file: BackboneFile = None,
    data_root: DataRoot = None,
    device: Device = "cpu",
    engine: Engine = "onnxruntime",
    precision: Precision = "fp32",
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Answer the samples of a run or a bundle, and store the answers.

    A run answers with torch, and a bundle in its engine.

    A run's outputs and report are replaced. A bundle gets the answers as outputs, from which
    `offramp calibrate` makes promises that hold for this engine.
    """
    from offramp.storage.manifest import is_bundle

    keep_freed_memory()
    if is_bundle(folder):
        check_for_bundle(backbone_file, device)
        show(_of_bundle(folder, data, data_root, split, engine, precision, threads), as_json)
        return
    if (engine, precision, split) != ("onnxruntime", "fp32", None):
        raise typer.BadParameter(
            "--engine, --precision and --split are for a bundle of `offramp export`; a run answers "
            "all splits with torch on --device"
        )
    from offramp.run import steps

    with progress_bars() as progress:
        result = steps.evaluate(
            folder,
            backbone_file=backbone_file,
            data_file=data,
            data_root=data_root,
            device=device,
            threads=threads,
            progress=progress,
        )
    show(result, as_json)


def _of_bundle(
    folder: Path,
    data: str | None,
    data_root: Path | None,
    split: Split | None,
    engine: str,
    precision: str,
    threads: int | None,
) -> "Evaluated":
    if data is None:
        raise typer.BadParameter(
            "a bundle contains no data. Give a plan, a run, or a folder with one folder per class",
            param_hint="--data",
        )
    from offramp.runtime.evaluating import evaluate_bundle
    from offramp.runtime.runtime import Runtime

    with Runtime(folder, engine=engine, precision=precision, threads=threads) as runtime:
        samples = _read(data, data_root, split, runtime.facts)
        with progress_bars() as progress:
            found = evaluate_bundle(runtime, samples, progress=progress)
        opened = runtime.parts.engine
        return Evaluated(folder, f"{opened.name} in {opened.precision}", found)


def _read(
    data: str, data_root: Path | None, split: Split | None, facts: "ModelFacts"
) -> Mapping[str, Any]:
    """Data sets by split."""
    from offramp.run.names import PLAN, PLAN_ENDINGS
    from offramp.runtime import folders

    place = Path(data)
    if place.is_dir() and not (place / PLAN).exists():
        if data_root is not None:
            raise typer.BadParameter("it is for the data of a plan", param_hint="--data-root")
        found = folders.read_splits(place, facts, split)
        if split is None and not folders.is_divided(place):
            note(
                f"{place} has no folders calibration and test, so it counts as calibration data; "
                "--split test makes it test data"
            )
        return found
    if place.suffix.lower() not in PLAN_ENDINGS and not place.is_dir() and ":" not in data:
        raise typer.BadParameter(
            f"{data} is neither a plan (.yaml) nor a folder nor FILE:FUNCTION", param_hint="--data"
        )
    return _of_plan(data, data_root, split, facts)


def _of_plan(
    data: str, data_root: Path | None, split: Split | None, facts: "ModelFacts"
) -> Mapping[str, Any]:
    from offramp.errors import DataError

    try:
        from offramp.run.data import splits_for
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"reading the data of a plan needs {error.name}, which is not installed: pip install "
            "'offramp[train]'. A folder with one folder per class needs nothing more."
        ) from error
    found = splits_for(data, facts, data_root)
    if split is None:
        return found
    if split not in found:
        raise DataError(f"{data} has no {split} split. Add it to the data of its plan.")
    return {split: found[split]}


@dataclass(frozen=True)
class Evaluated:
    """Result of `offramp evaluate` on a bundle.

    Attributes:
        folder: The bundle.
        engine: What answered.
        outputs: What was written, by file.
    """

    folder: Path
    engine: str
    outputs: "Mapping[str, ExitOutputs]"

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "bundle": str(self.folder),
            "engine": self.engine,
            "outputs": {name: _points(rows) for name, rows in self.outputs.items()},
        }

    def __str__(self) -> str:
        texts = [
            f"{(rows.source or {})['split']}, answered by {self.engine}:\n{_table(rows)}"
            for rows in self.outputs.values()
        ]
        written = ", ".join(str(self.folder / name) for name in self.outputs)
        return "\n\n".join([*texts, f"written: {written}"])


def _points(rows: "ExitOutputs") -> Any:
    """What is known of each exit."""
    try:
        from offramp.evaluation import tradeoff
    except (ModuleNotFoundError, ExtraError):  # intervals need scipy
        values = rows.measure.values(rows.outputs, rows.labels).mean(axis=1).tolist()
        flops = rows.own_path_cost().astype(int).tolist()
        exits = [
            {"name": name, "measure": rows.measure.name, "value": value, "flops": cost}
            for name, value, cost in zip(rows.names, values, flops, strict=True)
        ]
        return {"samples": len(rows.labels), "exits": exits}
    return tradeoff(rows).as_json()


def _table(rows: "ExitOutputs") -> "Table | str":
    """Accuracy and costs of the exits, with intervals where scipy is installed."""
    try:
        from offramp.evaluation import tradeoff
    except (ModuleNotFoundError, ExtraError):
        from offramp.table import Table, scaled_flops

        measure = rows.measure
        values = measure.values(rows.outputs, rows.labels).mean(axis=1)
        unit, (flops,) = scaled_flops(rows.own_path_cost().tolist())
        ms = [] if rows.stage_ms is None else rows.own_path_cost("ms").tolist()
        return Table.of(
            ("exit", rows.names),
            (measure.head, [measure.text(float(value)) for value in values]),
            (unit, flops),
            ("ms", [f"{each:.2f}" for each in ms]),
        )
    return str(tradeoff(rows))
