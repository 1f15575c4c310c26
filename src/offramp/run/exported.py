"""Exporting a finished run: its model, its policies, and what is known of its accuracy."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from offramp.arguments import as_path
from offramp.bundle import Bundle
from offramp.data import Samples
from offramp.exporting import export
from offramp.machine import environment
from offramp.multiexit.model import MultiExit
from offramp.multiexit.saved import WEIGHTS
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, PolicyMenu, Score
from offramp.policy.menu import read_policy
from offramp.progress import Progress, silent
from offramp.run.data import RunData
from offramp.run.names import METRICS, POLICY, lacking, outputs_of
from offramp.run.plan import Plan
from offramp.run.stored_model import plan_and_model
from offramp.storage.folder import Contents, read_folder
from offramp.storage.manifest import RUN

_TEST = outputs_of("test")


def export_run(
    folder: str | Path,
    to: str | Path,
    *,
    backbone_file: str | None = None,
    data_file: str | None = None,
    data_root: str | Path | None = None,
    engines: Sequence[str] = ("onnxruntime",),
    scores: Sequence[Score] = (),
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Bundle:
    """Write a bundle of a finished run, whose graphs are compared with it on its test samples.

    Args:
        folder: A run folder of `offramp train`.
        to: The bundle, which is replaced if it exists.
        backbone_file: `file.py:function`, for a run whose backbone is `python`.
        data_file: `file.py:function`, for a run whose data is `python`.
        data_root: Where the data is now, if it has moved.
        engines: Engines to compare and time.
        scores: Scores of your own that the run's policies use.
        progress: Called with the state of each kind of work.
        clock: In seconds, for measured times.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
        DataError: Its data is not where the plan says.
        ExportError: A graph cannot be made, or differs too much from the model.
    """
    folder = as_path(folder, "folder")
    files = [POLICY, lacking(POLICY, "*"), _TEST, METRICS]
    stored = read_folder(folder, RUN, [WEIGHTS], files)
    plan, model = plan_and_model(stored, backbone_file)
    data = RunData(plan, None, data_file, data_root)
    policies = _policies(stored, model, scores)
    return export(
        model,
        policies.pop(None, None),
        to=to,
        samples=data.splits.test,
        engines=engines,
        policies_without={number: each for number, each in policies.items() if number is not None},
        about=_about(folder, plan, model, data.splits.test, stored),
        progress=progress,
        clock=clock,
    )


def _policies(
    stored: Contents, model: MultiExit, scores: Sequence[Score]
) -> dict[int | None, ExitPolicy | PolicyMenu]:
    """The run's policies: for all inputs under None, and without an input under its number."""
    names: dict[str, int | None] = {POLICY: None}
    names |= {lacking(POLICY, n): n for n in range(len(model.backbone.inputs.names))}
    return {
        number: read_policy(stored.files[name], scores)
        for name, number in names.items()
        if name in stored.files
    }


def _about(
    folder: Path, plan: Plan, model: MultiExit, test: Samples, stored: Contents
) -> Mapping[str, Any]:
    machine = environment("cpu", 1)
    facts: dict[str, Any] = {
        "name": folder.resolve().name,
        "backbone": plan.backbone.name,
        "data": plan.data.kind,
        "test_samples": len(test),
        "versions": machine["versions"],
    }
    if _TEST in stored.files:
        outputs = ExitOutputs.load(stored.files[_TEST])
        measure, values = outputs.measure, outputs.measure.values(outputs.outputs, outputs.labels)
        facts["measure"] = measure.head
        facts["accuracy"] = {
            name: measure.text(float(each.mean()))
            for name, each in zip(outputs.names, values, strict=True)
        }
    if METRICS in stored.files:
        facts["rivals"] = _rivals(stored.files[METRICS])
    return facts


def _rivals(metrics: bytes) -> list[dict[str, Any]]:
    """The smaller static models that the run was compared with."""
    rows = json.loads(metrics)["comparison"]["rivals"]
    return [{name: row[name] for name in ("name", "value", "flops", "note")} for row in rows]
