"""A plan to a run folder: the order of the steps; stop it anywhere, and the same call goes on."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offramp.archive import read_arrays, write_arrays
from offramp.atomic import make_folder, write_bytes
from offramp.bundle import MANIFEST, read_file, read_manifest
from offramp.compute import torch_switches
from offramp.data import Splits
from offramp.environment import environment
from offramp.errors import PlanError
from offramp.evaluation import (
    Comparison,
    ExitMix,
    Rival,
    Tradeoff,
    TrialOutputs,
    compare,
    fixed_threshold,
    tradeoff,
)
from offramp.measure import collect_trials, measure_model
from offramp.multiexit import MultiExit
from offramp.outputs import ExitOutputs
from offramp.plan import Plan, load_plan
from offramp.prepare import build_backbone, prepare
from offramp.progress import Progress, silent
from offramp.rivals import static_rivals
from offramp.training import fit_branches

PLAN, METRICS, ENVIRONMENT, REPORT = "plan.yaml", "metrics.json", "environment.json", "report.html"
TRIALS, RIVALS = "outputs/trials.npz", "outputs/rivals.npz"
_RIVALS_SCHEMA = "offramp rivals 1"
SPLITS = ("validation", "calibration", "test")
WORK = "work"
"""Folder of the cache and of the training state; may be deleted once the run is done."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        comparison: Every branch over all seeds, and the static rivals, on the test images.
        exits: The chosen branches, on the test images.
        mix: Which exit answers at the plan's fixed threshold, on the test images.
    """

    folder: Path
    plan: Plan
    model: MultiExit
    comparison: Comparison
    exits: Tradeoff
    mix: ExitMix

    def summary(self) -> str:
        """What the table does not say, and where the files are."""
        return f"{self.mix}\n\nreport: {self.folder / REPORT}"


def train(
    plan: Plan,
    out: str | Path,
    *,
    backbone_file: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Do all that a plan says and leave a run folder; a finished run is read, not repeated.

    Args:
        plan: What to do.
        out: The run folder. State of an interrupted run there is gone on with.
        backbone_file: `file.py:function`, for a plan whose backbone is `python`.
        device: cpu, cuda or mps.
        threads: CPU threads; None leaves torch's number.
        progress: Told how far each kind of work is.
        clock: In seconds, for measured times.

    Raises:
        PlanError: The folder holds another plan's run.
        OfframpError: Whatever is wrong with the plan, the data or the folder.
    """
    folder = make_folder(Path(out))
    _claim(folder, plan)
    if (folder / MANIFEST).exists():
        return load_result(folder, backbone_file)
    prepared = prepare(plan, backbone_file)
    with torch_switches(threads=threads):
        started = clock()
        model = fit_branches(
            prepared.backbone,
            plan.branches,
            prepared.splits.train,
            prepared.splits.validation,
            out=folder / WORK,
            device=device,
            progress=progress,
            **plan.train.model_dump(),
        )
        model.info = prepared.info
        seconds = {"training": clock() - started}
        return _finish(folder, plan, model, prepared.splits, device, progress, clock, seconds)


def evaluate(
    folder: str | Path,
    *,
    backbone_file: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Answer the data splits again with a saved model; outputs, table and report are renewed.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    folder = Path(folder)
    plan = _stored_plan(folder)
    model = _stored_model(folder, plan, backbone_file).to(device)
    with torch_switches(threads=threads):
        return _finish(folder, plan, model, plan.data.load(), device, progress, clock, {})


def load_result(folder: str | Path, backbone_file: str | None = None) -> RunResult:
    """Read a finished run; nothing is computed but the intervals of the table.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
    """
    folder = Path(folder)
    plan = _stored_plan(folder)
    manifest = read_manifest(folder)
    for name in ("outputs/test.npz", TRIALS, RIVALS, METRICS):
        read_file(folder, manifest, name)
    metrics = json.loads((folder / METRICS).read_text())
    test = ExitOutputs.load(folder / "outputs" / "test.npz")
    return RunResult(
        folder,
        plan,
        _stored_model(folder, plan, backbone_file),
        _compared(plan, TrialOutputs.load(folder / TRIALS), _stored_rivals(folder, metrics)),
        tradeoff(test),
        fixed_threshold(test, threshold=plan.evaluate.threshold),
    )


def _claim(folder: Path, plan: Plan) -> None:
    """Write the plan first, so that a folder never mixes two plans."""
    text, path = plan.to_yaml(), folder / PLAN
    if path.exists() and path.read_text() != text:
        raise PlanError(
            f"{folder} holds a run of another plan. Choose another --out, or delete that folder "
            "to start over."
        )
    write_bytes(path, text.encode())


def _stored_rivals(folder: Path, metrics: Mapping[str, Any]) -> list[Rival]:
    known = [Rival(**facts) for facts in metrics["rivals"]]
    values = read_arrays(folder / RIVALS, _RIVALS_SCHEMA, [rival.name for rival in known])
    return [replace(r, values=values[r.name].astype(np.float64)) for r in known]


def _stored_plan(folder: Path) -> Plan:
    manifest = read_manifest(folder)
    read_file(folder, manifest, PLAN)
    return load_plan(folder / PLAN)


def _stored_model(folder: Path, plan: Plan, backbone_file: str | None) -> MultiExit:
    by_flag = build_backbone(plan, backbone_file) if backbone_file is not None else None
    return MultiExit.load(folder, backbone=by_flag)


def _finish(
    folder: Path,
    plan: Plan,
    model: MultiExit,
    splits: Splits,
    device: str,
    progress: Progress,
    clock: Callable[[], float],
    seconds: dict[str, float],
) -> RunResult:
    """Measure, answer every split, compare, report; the manifest comes last and ends the run."""
    started = clock()
    wanted = plan.evaluate
    timings = None
    if wanted.timing_repeats:
        timings = measure_model(
            model,
            warmup=wanted.timing_warmup,
            repeats=wanted.timing_repeats,
            clock=clock,
            progress=progress,
        )
    exit_timings = None if timings is None else timings.of_exits(model)
    outputs = {
        name: model.collect(images, timings=exit_timings, split=name, progress=progress)
        for name, images in splits.items()
        if name in SPLITS
    }
    trials = collect_trials(model, splits.test, timings=timings, progress=progress)
    rivals = tuple(
        static_rivals(
            model,
            splits.train,
            splits.test,
            wanted.rival_sizes,
            train_images=wanted.rival_images,
            progress=progress,
        )
    )
    test = outputs["test"]
    result = RunResult(
        folder,
        plan,
        model,
        _compared(plan, trials, rivals),
        tradeoff(test),
        fixed_threshold(test, threshold=wanted.threshold),
    )
    seconds = {**seconds, "evaluation": clock() - started}
    facts = {**environment(device), "seconds": {k: round(v, 1) for k, v in seconds.items()}}
    _write(result, outputs, trials, facts, splits)
    return result


def _compared(plan: Plan, trials: TrialOutputs, rivals: Sequence[Rival]) -> Comparison:
    wanted = plan.evaluate
    return compare(trials, rivals, draws=wanted.bootstrap_draws, seed=wanted.bootstrap_seed)


def _write(
    result: RunResult,
    outputs: dict[str, ExitOutputs],
    trials: TrialOutputs,
    facts: dict[str, Any],
    splits: Splits,
) -> None:
    folder = result.folder
    make_folder(folder / "outputs")
    for name, answers in outputs.items():
        answers.save(folder / "outputs" / f"{name}.npz")
    trials.save(folder / TRIALS)
    rivals = [row.rival for row in result.comparison.rivals]
    write_arrays(folder / RIVALS, _RIVALS_SCHEMA, {r.name: np.asarray(r.values) for r in rivals})
    metrics = {
        "comparison": result.comparison.as_json(),
        "exits": result.exits.as_json(),
        "fixed_threshold": result.mix.as_json(),
        "rivals": [row.rival.as_json() for row in result.comparison.rivals],
        "samples": {name: len(images) for name, images in splits.items()},
        "skipped_images": list(splits.skipped),
    }
    write_bytes(folder / METRICS, _json(metrics))
    write_bytes(folder / ENVIRONMENT, _json(facts))


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
