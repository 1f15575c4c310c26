"""The steps from a plan to a run folder. After any stop, the same call resumes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from offramp.arguments import as_path, check_kind
from offramp.compute import device_name, torch_switches
from offramp.data import Splits
from offramp.doubts import warn_of
from offramp.errors import OfframpError, PlanError
from offramp.machine import environment
from offramp.multiexit.model import MultiExit
from offramp.progress import Progress, silent
from offramp.python_function import executed_once
from offramp.run.data import CHECKED, RunData, check_files, data_keys
from offramp.run.extension import (
    NOTHING_TRAINED,
    check_same_data,
    earlier_run,
    extending,
    is_finished,
    kept_trials,
    warn_of_lost_policy,
    work_done,
)
from offramp.run.measure import RunContext, doubts_before_training, measure_splits
from offramp.run.names import PLAN, POLICY, WORK, lacking
from offramp.run.plan import Plan, load_plan
from offramp.run.prepare import prepare_run
from offramp.run.results import RunResult
from offramp.run.stored import load_run, write_result
from offramp.storage.atomic import make_folder, write_bytes
from offramp.training import fit_branches
from offramp.training.checks import check_device


def train(
    plan: Plan,
    out: str | Path,
    *,
    splits: Splits | None = None,
    backbone_file: str | None = None,
    data_file: str | None = None,
    data_root: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Train, answer and measure as a plan says, into a run folder.

    A finished run of the same plan is only read. A larger plan (with more seeds, learning rates,
    cuts or branches) extends the run: trained branches stay, the new ones are trained, and all
    samples are answered again. A branch that failed because memory ran out is tried again, unless
    `work/` was deleted.

    Args:
        plan: The plan.
        out: The run folder; an interrupted run in it is resumed.
        splits: The data, if it is loaded already; None loads what the plan names.
        backbone_file: `file.py:function`, for a plan whose backbone is `python`.
        data_file: `file.py:function` that returns the splits, for a plan whose data is `python`.
        data_root: Folder that the data has moved to; the run stores it.
        cache: Folder of taps that runs share; None uses the run's own `work/cache`.
        device: cpu, cuda or mps, where the result's model is afterwards.
        threads: CPU threads; None leaves torch's number.
        progress: Called with the state of each kind of work.
        clock: In seconds, for measured times.

    Raises:
        PlanError: The folder holds a run of a plan that this one does not contain, or the device
            is not available.
        BundleError: The folder has files of the names that a run writes, but holds no run.
        OfframpError: Something else is wrong with the plan, the data or the folder.
    """
    check_device(device)
    check_kind(plan, Plan, "plan", "Give a Plan, such as load_plan('plan.yaml').")
    folder = make_folder(as_path(out, "out"))
    data = RunData(plan, splits, data_file, data_root)
    plan = data.plan
    with executed_once():
        earlier = earlier_run(folder, data, backbone_file)
        if earlier is not None and is_finished(earlier, plan):
            _keep_plan(folder, plan)
            earlier.model.to(device)
            return replace(earlier, plan=plan, work_done=NOTHING_TRAINED)
        if earlier is not None:
            _keep_plan(folder, earlier.plan)
        prepared = prepare_run(plan, backbone_file, data)
    known = () if earlier is None else kept_trials(earlier, plan, prepared.backbone)
    check_files(prepared.splits, folder / WORK, progress)
    started = clock()
    had_policy = (folder / POLICY).exists() or any(folder.glob(lacking(POLICY, "*")))
    claim = _claim(folder, plan) if earlier is None else extending(folder / WORK, plan)
    with torch_switches(threads=threads), claim:
        whole = MultiExit(prepared.backbone, {}, task=plan.task, info=prepared.info)
        warn_of(doubts_before_training(whole, prepared.splits.validation))
        model = fit_branches(
            prepared.backbone,
            plan.branches,
            prepared.splits.train,
            prepared.splits.validation,
            out=folder / WORK,
            cache=cache,
            task=plan.task,
            device=device,
            progress=progress,
            known=known,
            **plan.train.model_dump(),
        )
        model.info = prepared.info
        context = RunContext(device, progress, clock)
        result = _evaluate(folder, plan, model, prepared.splits, context, clock() - started)
    if earlier is not None and had_policy:
        warn_of_lost_policy(result, earlier)
    return replace(result, work_done=work_done(result, len(known), earlier))


def evaluate(
    folder: str | Path,
    *,
    splits: Splits | None = None,
    backbone_file: str | None = None,
    data_file: str | None = None,
    data_root: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Answer all splits again with a saved model, and replace outputs, table and report.

    Arguments are those of `train`.

    Raises:
        BundleError: The run is unfinished, or a file of it was changed.
        DataError: The data has changed since.
    """
    check_device(device)
    folder = as_path(folder, "folder")
    with executed_once():
        run = load_run(folder, backbone_file)
        data = RunData(run.plan, splits, data_file, data_root)
        check_same_data(folder, run.data_keys, data.splits)
    _keep_plan(folder, run.plan)
    context = RunContext(device, progress, clock)
    with torch_switches(threads=threads):
        return _evaluate(folder, data.plan, run.model, data.splits, context, run.training_seconds)


@contextmanager
def _claim(folder: Path, plan: Plan) -> Iterator[None]:
    """Write the plan into the folder, so that a folder never mixes two plans.

    A refused plan is removed again. The plan of an interrupted run is replaced by a larger one.
    """
    path = folder / PLAN
    before = path.read_bytes() if path.exists() else None
    _keep_plan(folder, plan)
    try:
        yield
    except OfframpError as error:
        worked = any(found.name != CHECKED for found in (folder / WORK).glob("*"))
        if before is None and (isinstance(error, PlanError) or not worked):
            path.unlink()
        elif before is not None and isinstance(error, PlanError):
            write_bytes(path, before)
        raise


def _keep_plan(folder: Path, plan: Plan) -> None:
    """Write a plan into its run, unless the file there, with its comments, says the same."""
    path = folder / PLAN
    if not path.exists() or load_plan(path) != plan:
        write_bytes(path, plan.to_yaml().encode())


def _evaluate(
    folder: Path,
    plan: Plan,
    model: MultiExit,
    splits: Splits,
    context: RunContext,
    training_seconds: float,
) -> RunResult:
    started = context.clock()
    seen = measure_splits(model, splits, plan.evaluate, context)
    result = RunResult.judged(folder, plan, model, seen, data_keys(splits))
    seconds = {
        "training": round(training_seconds, 1),
        "evaluation": round(context.clock() - started, 1),
    }
    machine = environment(device_name(context.device), torch.get_num_threads())
    write_result(result, seen, splits, {**machine, "seconds": seconds})
    return result
