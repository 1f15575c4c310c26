"""The files of a run folder: writing a result and reading it back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from offramp.data import Splits
from offramp.evaluation import Rival, TrialOutputs
from offramp.multiexit.model import MultiExit
from offramp.multiexit.saved import WEIGHTS, describe_model, write_weights
from offramp.outputs import ExitOutputs
from offramp.report import write_report
from offramp.run.data import data_keys
from offramp.run.measure import ANSWERED, Measured
from offramp.run.names import ENVIRONMENT, METRICS, PLAN, POLICY, lacking, outputs_of
from offramp.run.plan import Plan, load_plan
from offramp.run.results import RunResult, report_inputs
from offramp.run.stored_model import plan_and_model
from offramp.storage.archive import read_arrays, write_arrays
from offramp.storage.atomic import write_bytes
from offramp.storage.folder import Contents, changing, is_stored, read_folder
from offramp.storage.manifest import RUN

_TRIALS, _RIVALS = "outputs/trials.npz", "outputs/rivals.npz"
RUN_NAMES = (
    *(WEIGHTS, METRICS, ENVIRONMENT, POLICY, "outputs"),
    *("report.html", "tradeoff.png", "tradeoff.svg"),
)
"""Files and folders of a finished run, besides its manifest and plan."""
_RIVALS_SCHEMA = "offramp rivals 1"


def write_result(
    result: RunResult, seen: Measured, splits: Splits, facts: Mapping[str, Any]
) -> None:
    """Replace the run folder's files as a whole. A policy stays if the exits are the same.

    Args:
        result: The result.
        seen: Its measurements.
        splits: The data.
        facts: Content of `environment.json`: machine, device, seconds.
    """
    parts = result.model.parts
    content = {
        **describe_model(parts),
        "plan": result.plan.model_dump(mode="json"),
        "data": data_keys(splits),
        "data_function": splits.origin if result.plan.data.kind == "python" else "",
        "seconds": facts["seconds"],
    }
    same_exits = _model_digest(result.folder) == content["model_digest"]
    inputs = result.model.backbone.inputs.names
    policies = [POLICY, *(lacking(POLICY, number) for number in range(len(inputs)))]
    with changing(result.folder, RUN, content, keep=[PLAN, *policies * same_exits]) as staged:
        if load_plan(result.folder / PLAN) != result.plan:
            write_bytes(staged / PLAN, result.plan.to_yaml().encode())
        write_weights(parts, staged)
        for name, answers in seen.outputs.items():
            answers.save(staged / outputs_of(name))
        for (split, absent), answers in seen.quiet.items():
            answers.save(staged / lacking(outputs_of(split), inputs.index(absent)))
        seen.trials.save(staged / _TRIALS)
        rivals = {rival.name: np.asarray(rival.values) for rival in seen.rivals}
        write_arrays(staged / _RIVALS, _RIVALS_SCHEMA, rivals)
        write_bytes(staged / METRICS, _json(_metrics(result, seen, splits)))
        write_bytes(staged / ENVIRONMENT, _json(facts))
        write_report(staged, report_inputs(result, seen, splits, facts))


def _model_digest(folder: Path) -> str | None:
    """Digest of the exits of a finished run; None if there is none."""
    if not is_stored(folder):
        return None
    digest: str = read_folder(folder, RUN).manifest["model_digest"]
    return digest


def _metrics(result: RunResult, seen: Measured, splits: Splits) -> dict[str, Any]:
    return {
        **result.as_json(),
        "rivals": [rival.as_json() for rival in seen.rivals],
        "notes": list(seen.notes),
        "samples": {name: len(images) for name, images in splits.named().items()},
        "timings_ms": None if seen.timings is None else seen.timings.as_json(),
        "data": data_keys(splits),
        "skipped_files": list(splits.skipped),
    }


def load_result(folder: str | Path, backbone_file: str | None = None) -> RunResult:
    """Read a finished run; only the intervals of the table are recomputed.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    folder = Path(folder)
    outputs = {split: outputs_of(split) for split in ANSWERED}
    names = (WEIGHTS, outputs_of("test"), _TRIALS, _RIVALS, METRICS)
    quiet = lacking(outputs_of("test"), "*")
    stored = read_folder(folder, RUN, names, optional=[*outputs.values(), quiet])
    plan, model = plan_and_model(stored, backbone_file)
    metrics = json.loads(stored.files[METRICS])
    seen = Measured(
        {
            split: ExitOutputs.load(stored.files[name])
            for split, name in outputs.items()
            if name in stored.files
        },
        TrialOutputs.load(stored.files[_TRIALS]),
        _stored_rivals(stored),
        notes=tuple(metrics["notes"]),
        doubts=tuple(metrics.get("warnings", ())),
        quiet=_stored_without(stored),
    )
    return RunResult.judged(folder, plan, model, seen, stored.manifest["data"])


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run, read to be evaluated again.

    Attributes:
        plan: Its plan.
        model: Its model.
        data_keys: Hashes of its data, by split.
        training_seconds: Duration of its training.
    """

    plan: Plan
    model: MultiExit
    data_keys: Mapping[str, str]
    training_seconds: float


def load_run(folder: Path, backbone_file: str | None = None) -> StoredRun:
    """Plan, model and facts of a finished run.

    Raises:
        BundleError: The run is unfinished, or one of these was changed.
    """
    stored = read_folder(folder, RUN, [WEIGHTS])
    plan, model = plan_and_model(stored, backbone_file)
    return StoredRun(plan, model, stored.manifest["data"], stored.manifest["seconds"]["training"])


def _stored_without(stored: Contents) -> dict[tuple[str, str], ExitOutputs]:
    pattern = lacking(outputs_of("test"), "*")
    files = sorted(name for name in stored.files if fnmatchcase(name, pattern))
    found = [ExitOutputs.load(stored.files[name]) for name in files]
    return {("test", (each.source or {})["without"][0]): each for each in found}


def _stored_rivals(stored: Contents) -> list[Rival]:
    known = [Rival(**facts) for facts in json.loads(stored.files[METRICS])["rivals"]]
    values = read_arrays(stored.files[_RIVALS], _RIVALS_SCHEMA, [rival.name for rival in known])
    return [replace(r, values=values[r.name].astype(np.float64)) for r in known]


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
