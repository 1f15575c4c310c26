"""A plan to a run folder: the order of the steps; stop it anywhere, and the same call goes on."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from offramp.compute import device_name, torch_switches
from offramp.data import Splits
from offramp.errors import DataError, PlanError
from offramp.machine import environment
from offramp.multiexit.model import MultiExit
from offramp.progress import Progress, silent
from offramp.run.measure import collect_trials, measure_model
from offramp.run.plan import EvaluatePlan, Plan, load_plan
from offramp.run.prepare import prepare
from offramp.run.results import (
    PLAN,
    SPLITS,
    Answered,
    RunResult,
    data_keys,
    load_result,
    load_run,
    stored_data_keys,
    write_result,
)
from offramp.run.rivals import static_rivals
from offramp.storage.atomic import make_folder, write_bytes
from offramp.storage.manifest import MANIFEST
from offramp.training import fit_branches
from offramp.training.checks import check_device

WORK = "work"
"""Folder of the cache and of the training state; may be deleted once the run is done."""


@dataclass(frozen=True)
class _How:
    """Where and how a run computes."""

    device: str
    progress: Progress
    clock: Callable[[], float]


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
    _check_unclaimed(folder, plan)
    check_device(device)
    if (folder / MANIFEST).exists():
        result = load_result(folder, backbone_file)
        result.model.to(device)
        _check_same_data(folder, plan.data.load())
        return result
    prepared = prepare(plan, backbone_file)
    started = clock()
    with torch_switches(threads=threads), _claim(folder, plan):
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
        how = _How(device, progress, clock)
        return _evaluate(folder, plan, model, prepared.splits, how, clock() - started)


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
        DataError: The images have changed since.
    """
    check_device(device)
    folder = Path(folder)
    plan, model = load_run(folder, backbone_file)
    splits = plan.data.load()
    _check_same_data(folder, splits)
    how = _How(device, progress, clock)
    with torch_switches(threads=threads):
        return _evaluate(folder, plan, model, splits, how, None)


@contextmanager
def _claim(folder: Path, plan: Plan) -> Iterator[None]:
    """Write the plan down, so that a folder never mixes two; a refused plan leaves no claim."""
    path = folder / PLAN
    claimed = path.exists()
    write_bytes(path, plan.to_yaml().encode())
    try:
        yield
    except PlanError:
        if not claimed:
            path.unlink()
        raise


def _check_unclaimed(folder: Path, plan: Plan) -> None:
    path = folder / PLAN
    if path.exists() and path.read_text() != plan.to_yaml():
        different = _differences(load_plan(path).model_dump(), plan.model_dump())
        raise PlanError(
            f"{folder} holds a run of another plan; they differ in {', '.join(different)}. Choose "
            "another --out, or delete that folder to start over."
        )


def _differences(one: object, other: object, at: str = "") -> list[str]:
    """Dotted keys of what differs between two nested mappings."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [
            found
            for key in keys
            for found in _differences(one.get(key), other.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if one == other else [at]


def _check_same_data(folder: Path, splits: Splits) -> None:
    """Refuse a finished run whose pictures have changed since."""
    stored = stored_data_keys(folder)
    changed = [name for name, key in data_keys(splits).items() if stored[name] != key]
    if changed:
        raise DataError(
            f"{folder} holds a finished run, but the {', '.join(changed)} images of its plan have "
            "changed since. Choose another --out to train on the new ones, or delete that folder."
        )


def _evaluate(
    folder: Path,
    plan: Plan,
    model: MultiExit,
    splits: Splits,
    how: _How,
    training_seconds: float | None,
) -> RunResult:
    started = how.clock()
    seen = _answered(model, splits, plan.evaluate, how)
    result = RunResult.judged(folder, plan, model, seen)
    seconds = {"evaluation": round(how.clock() - started, 1)}
    if training_seconds is not None:
        seconds = {"training": round(training_seconds, 1), **seconds}
    write_result(
        result,
        seen,
        splits,
        {**environment(device_name(how.device), torch.get_num_threads()), "seconds": seconds},
    )
    return result


def _answered(model: MultiExit, splits: Splits, wanted: EvaluatePlan, how: _How) -> Answered:
    """Move the model to the device; time it there, and let it, its trials and rivals answer."""
    model.to(how.device)
    timings = exit_timings = None
    if wanted.timing_repeats:
        timings = measure_model(
            model,
            warmup=wanted.timing_warmup,
            repeats=wanted.timing_repeats,
            clock=how.clock,
            progress=how.progress,
        )
        exit_timings = timings.of_exits(model)
    parts = splits.named()
    outputs = {
        name: model.collect(parts[name], timings=exit_timings, split=name, progress=how.progress)
        for name in SPLITS
    }
    trials = collect_trials(model, splits.test, timings=timings, progress=how.progress)
    rivals = static_rivals(
        model,
        splits.train,
        splits.test,
        wanted.rival_sizes,
        train_images=wanted.rival_images,
        progress=how.progress,
    )
    return Answered(outputs, trials, rivals, timings)
