"""Forecast: disk, memory and time that a plan would need, without training."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.compute import device_name, torch_switches
from offramp.data import Splits
from offramp.machine import peak_memory
from offramp.multiexit.answers import answer_samples
from offramp.multiexit.trial import Failed, Trial
from offramp.progress import Progress, silent
from offramp.python_function import executed_once
from offramp.record import Record
from offramp.run.data import RunData
from offramp.run.extension import earlier_run, is_finished, kept_trials
from offramp.run.listing import trained_branches
from offramp.run.measure import answered
from offramp.run.names import WORK
from offramp.run.plan import Plan
from offramp.run.prepare import Prepared, prepare_run
from offramp.run.rivals import BATCH_SIZE
from offramp.table import bytes_text
from offramp.training.checks import check_device
from offramp.training.forecast import Clock, TrainingForecast, forecast_training
from offramp.training.job import Job
from offramp.training.mode import available_memory, free_disk, same_disk

_STATES = {
    "new": "a new run",
    "resumes": "resumes the interrupted run there",
    "extends": "extends the finished run there",
    "finished": "a finished run of this plan is there, so nothing would be trained",
}


@dataclass(frozen=True)
class Forecast(Record):
    """What `offramp train` would do and need.

    Attributes:
        folder: The run folder.
        state: `new`, `resumes`, `extends` or `finished`.
        trials: Number of all trials: branches times seeds and learning rates.
        kept: Number of these that the finished run has already.
        resumed: Number of these that the interrupted run has trained.
        samples: Number of samples of each split.
        how: `cached` or `fused`; empty if nothing is left to train.
        why: Reason for this mode.
        cache: Folder of the taps.
        tap_bytes: Exact size of all taps if they are cached.
        tap_bytes_missing: The part of it that is still to be written; 0 in the fused mode.
        cache_free: Free bytes on the disk of the cache.
        run_bytes: Largest size of the rest of the run: training states, weights, answers.
        run_free: Free bytes on the disk of the run.
        enough_disk: Whether both fit.
        memory_bytes: Estimate of the largest memory of the process; None if the system does not
            say how much the probe took.
        memory_free: Bytes of memory that were free before the probe.
        seconds: Estimates for `taps`, `training` (if no branch stops early) and `evaluation`, from
            a short probe on this machine.
        workers: Number of branches that train at the same time.
        device: Device for all work.
    """

    folder: str
    state: str
    trials: int
    kept: int
    resumed: int
    samples: Mapping[str, int]
    how: str = ""
    why: str = ""
    cache: str = ""
    tap_bytes: int = 0
    tap_bytes_missing: int = 0
    cache_free: int = 0
    run_bytes: int = 0
    run_free: int = 0
    enough_disk: bool = True
    memory_bytes: int | None = None
    memory_free: int = 0
    seconds: Mapping[str, float] | None = None
    workers: int = 0
    device: str = "cpu"

    @property
    def work_done(self) -> str:
        """Sentence on the work done, as in `RunResult`."""
        return "nothing was trained or written"

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self.samples.items())
        lines = {
            "run": f"{self.folder}: {_STATES[self.state]}",
            "samples": counts,
            "trials": self._trials_text(),
        }
        if self.seconds is not None:
            lines |= self._needs_texts(self.seconds)
        return "\n".join(f"{name:<8} {value}" for name, value in lines.items())

    def _trials_text(self) -> str:
        left = self.trials - self.kept - self.resumed
        parts = {"kept from the finished run": self.kept, "trained already": self.resumed}
        more = "".join(f", {count} {what}" for what, count in parts.items() if count)
        return f"{left} of {self.trials} to train{more}"

    def _needs_texts(self, seconds: Mapping[str, float]) -> dict[str, str]:
        missing = bytes_text(self.tap_bytes_missing)
        at_once = f"{self.workers} {'branch' if self.workers == 1 else 'branches'}"
        each = {
            "taps": f"taps {duration_text(seconds['taps'])}",
            "training": f"training at most {duration_text(seconds['training'])}",
            "evaluation": f"evaluation {duration_text(seconds['evaluation'])}",
        }
        return {
            "how": f"{self.how}: {self.why}",
            "taps": (
                f"{missing} of {bytes_text(self.tap_bytes)} to write in {self.cache}; "
                f"{bytes_text(self.cache_free)} free"
                if self.how == "cached"
                else "not stored"
            ),
            "disk": (
                f"at most {bytes_text(self.run_bytes)} besides the stored taps; "
                f"{free_text(self.run_free, self.enough_disk)}"
            ),
            "memory": memory_text(self.memory_bytes, self.memory_free),
            "time": (
                f"about {duration_text(sum(seconds.values()))} ({', '.join(each.values())})\n"
                f"{'':<8} estimated from a few batches, {at_once} at once on {self.device}; "
                "less where branches stop early;\n"
                f"{'':<8} without timing and static rivals (the network on smaller pictures)"
            ),
        }


def forecast_run(
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
    clock: Clock = time.perf_counter,
) -> Forecast:
    """Check a plan with its data, backbone and cuts, and estimate what training would need.

    Arguments and errors are those of `train`. Nothing is written. Only a few pictures are decoded;
    `train` finds out whether all of them can be read.
    """
    check_device(device)
    folder, memory_free = Path(out), available_memory()
    data = RunData(plan, splits, data_file, data_root)
    with executed_once():
        earlier = earlier_run(folder, data, backbone_file)
        prepared = prepare_run(plan, backbone_file, data)
    trials = sum(map(len, plan.branches.values())) * plan.train.num_trials
    about: dict[str, Any] = {
        "folder": str(folder),
        "trials": trials,
        "kept": 0,
        "resumed": 0,
        "samples": {name: len(each) for name, each in prepared.splits.named().items()},
    }
    if earlier is not None and is_finished(earlier, plan):
        return Forecast(**about | {"state": "finished", "kept": trials})
    known: tuple[Trial | Failed, ...] = ()
    if earlier is not None:
        known = kept_trials(earlier, plan, prepared.backbone)
        about |= {"state": "extends", "kept": len(known)}
    else:
        resumed = min(trials, trained_branches(folder / WORK))
        about |= {"state": "resumes" if (folder / WORK).exists() else "new", "resumed": resumed}
    job = Job.of(
        prepared.backbone,
        plan.branches,
        prepared.splits.train,
        prepared.splits.validation,
        settings=plan.train,
        task=plan.task,
        device=device,
        known=known,
    )
    taps = folder / WORK / "cache" if cache is None else Path(cache)
    with torch_switches(threads=threads):
        training = forecast_training(job, folder / WORK, taps, progress=progress, clock=clock)
        per_sample = _answer_seconds(job, prepared.splits, clock)
    left = trials - about["kept"]
    return Forecast(
        **about,
        how=training.mode.how,
        why=training.mode.reason,
        cache=str(taps),
        **_disk(job, prepared, training, folder, taps),
        memory_bytes=_memory(job, training),
        memory_free=memory_free,
        seconds={
            "taps": training.extract_seconds,
            "training": training.train_seconds * (left - about["resumed"]) / max(left, 1),
            "evaluation": _evaluation_seconds(job, prepared.splits, training, per_sample),
        },
        workers=training.workers,
        device=device_name(device),
    )


def _answer_seconds(job: Job, splits: Splits, clock: Clock) -> float:
    """Seconds of one sample in the evaluation's pass of the whole backbone, with reading."""
    backbone, task = job.backbone.to(job.device), job.recipe.task
    some = splits.test.sample(min(BATCH_SIZE, len(splits.test)), 0)
    for _ in range(2):  # the first one warms up
        start = clock()
        answer_samples(backbone, (), some, task, BATCH_SIZE, "", silent)
    return (clock() - start) / len(some)


def _evaluation_seconds(
    job: Job, splits: Splits, training: TrainingForecast, per_sample: float
) -> float:
    """Seconds for every split in the backbone, and for the test split in every trial."""
    num_answered = sum(map(len, answered(splits).values()))
    each = job.settings.num_trials * sum(times.judge for times in training.steps.values())
    return num_answered * per_sample + len(splits.test) * each


def _disk(
    job: Job, prepared: Prepared, training: TrainingForecast, folder: Path, taps: Path
) -> dict[str, Any]:
    cache_free, run_free = free_disk(taps), free_disk(folder)
    run = training.state_bytes + _result_bytes(job, prepared)
    missing = training.missing_bytes
    apart = missing <= cache_free and run <= run_free
    return {
        "tap_bytes": training.needs.disk if training.mode.how == "cached" else 0,
        "tap_bytes_missing": missing,
        "cache_free": cache_free,
        "run_bytes": run,
        "run_free": run_free,
        "enough_disk": apart and (not same_disk(taps, folder) or missing + run <= run_free),
    }


def _result_bytes(job: Job, prepared: Prepared) -> int:
    """Size of all weights and of the answers of exits and trials."""
    num_answered = sum(map(len, answered(prepared.splits).values()))
    exits, trials = len(job.sweep.cuts) + 1, job.settings.num_trials * len(job.probes)
    values = job.recipe.num_outputs * (
        exits * num_answered + (trials + 1) * len(prepared.splits.test)
    )
    backbone: int = sum(value.numel() for value in job.backbone.original.state_dict().values())
    return 4 * (values + backbone + _trial_values(job))


def _trial_values(job: Job) -> int:
    """Number of weights of all trials."""
    return job.settings.num_trials * sum(probe.num_params for probe in job.probes.values())


def _memory(job: Job, training: TrainingForecast) -> int | None:
    """Estimate of the largest memory, from the probe and the branches trained at the same time."""
    held = peak_memory()
    if held is None:
        return None
    largest = max(probe.num_params for probe in job.probes.values())
    at_once = 4 * 5 * largest * training.workers
    more = training.needs.memory if training.mode.how == "fused" else at_once
    return held + more + 4 * _trial_values(job)


def free_text(num_bytes: int, enough: bool) -> str:
    """Free bytes of a disk, and whether they are enough."""
    return f"{bytes_text(num_bytes)} free" + ("" if enough else " -- NOT ENOUGH")


def memory_text(needed: int | None, free: int) -> str:
    """Bytes of memory that are needed, if known, and free ones."""
    about = "" if needed is None else f"about {bytes_text(needed)}; "
    return f"{about}{bytes_text(free)} free"


def duration_text(seconds: float) -> str:
    """A rough duration in seconds, minutes or hours."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours} h"
