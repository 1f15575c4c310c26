"""Forecast of training: what a job needs, and how long it will take, from a short probe."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from offramp.compute import wait_for
from offramp.errors import DataError
from offramp.features import Executor, Taps, start_executor
from offramp.features.absent import filled
from offramp.features.extract import Extraction, formats
from offramp.features.source import TapSource
from offramp.features.taps import by_channel, scale_for
from offramp.progress import Progress, silent
from offramp.training.job import Job
from offramp.training.learner import TrialName
from offramp.training.lockstep import JUDGE_BATCH_SIZE
from offramp.training.mode import Mode, Needs, mode_in

Clock = Callable[[], float]
PROBE_SECONDS = 2.0
"""Seconds for which extraction is probed; each branch is probed for a quarter of that."""


@dataclass(frozen=True)
class StepTimes:
    """Times of one branch on one worker, in seconds.

    Attributes:
        learn: One training step on a full batch.
        judge: Validating one sample.
    """

    learn: float
    judge: float


@dataclass(frozen=True)
class TrainingForecast:
    """What training a job needs.

    Attributes:
        mode: How taps will be supplied, and why.
        needs: Bytes that each mode needs.
        missing_bytes: Size of the taps that the cached mode would still write.
        state_bytes: Largest size of the training states of the branches to train.
        workers: Number of branches that train at the same time.
        extract_seconds: Time of one pass over the training and validation samples; None if no
            taps are missing.
        train_seconds: Time of training if no branch stops early.
        steps: Times of each branch, by its cut and label.
    """

    mode: Mode
    needs: Needs
    missing_bytes: int
    state_bytes: int
    workers: int
    extract_seconds: float
    train_seconds: float
    steps: Mapping[tuple[str, str], StepTimes]


def forecast_training(
    job: Job,
    root: Path,
    taps: Path,
    *,
    threads: int | None = None,
    progress: Progress = silent,
    clock: Clock = time.perf_counter,
) -> TrainingForecast:
    """Probe a few batches of extraction and a few steps of each branch; nothing is written.

    Args:
        job: A job with something left to train.
        root: Folder for the training state; may be missing.
        taps: Folder for the taps; may be missing.
        threads: As in `fit_branches`.
        progress: Called after each branch.
        clock: In seconds.

    Raises:
        PlanError: No mode is possible.
        DataError: A branch fails in the probe.
    """
    with start_executor(threads, job.device) as executor:
        needs = job.needs(taps, executor.ahead)
        mode = mode_in(root, job.sweep.cuts, needs, job.settings, taps, keep=False)
        missing = job.missing_bytes(taps) if mode.how == "cached" else 0
        probe = _Probe(job, executor, clock)
        per_sample, batch = probe.extraction()
        steps = {}
        for done, name in enumerate(_one_of_each(job), start=1):
            steps[name.cut, name.spec.label()] = probe.branch(name, batch[name.cut])
            progress("probe of the branches", done, len(job.probes))
        workers = min(executor.count, job.sweep.num_untrained)
    state = sum(
        4 * 4 * job.probes[name.cut, name.spec.label()].num_params
        for cut in job.sweep.needed
        for name in job.sweep.untrained(cut)
    )
    one_pass = per_sample * (len(job.training_samples) + len(job.validation.targets))
    passes = one_pass if missing or mode.how == "fused" else 0.0
    epochs = job.settings.epochs
    epoch = per_sample * (len(job.train.targets) + len(job.validation.targets))
    again = epochs * epoch if mode.how == "fused" else 0.0
    return TrainingForecast(
        mode,
        needs,
        missing,
        state,
        workers,
        passes,
        again + _steps_seconds(job, steps) / workers,
        steps,
    )


def _one_of_each(job: Job) -> Iterator[TrialName]:
    """One trial of each branch that is still to be trained."""
    for cut in job.sweep.needed:
        yield from {name.spec.label(): name for name in job.sweep.untrained(cut)}.values()


def _steps_seconds(job: Job, steps: Mapping[tuple[str, str], StepTimes]) -> float:
    """Seconds of all steps of all branches, one after the other, if none stops early."""
    batches = -(-len(job.train.targets) // job.settings.batch_size)
    each = {
        name: times.learn * batches + times.judge * len(job.validation.targets)
        for name, times in steps.items()
    }
    return job.settings.epochs * sum(
        each[name.cut, name.spec.label()]
        for cut in job.sweep.needed
        for name in job.sweep.untrained(cut)
    )


@dataclass(frozen=True, eq=False)
class _Probe:
    job: Job
    executor: Executor
    clock: Clock

    def extraction(self) -> tuple[float, Taps]:
        """Seconds per sample that extraction takes with all workers, and the taps of one batch."""
        job, samples = self.job, self.job.training_samples
        source = TapSource.of(job.backbone, job.sweep.needed, job.device, self.executor)
        rows = np.random.default_rng(0).permutation(len(samples))
        first = samples.read(rows[: source.batch_size])
        with torch.no_grad():
            taps = source.taps(filled(first, source.input_shapes, source.input_dtypes))
        scales = {
            cut: tuple(scale_for(by_channel(tap.float().abs()).amax(dim=0).cpu()) for tap in each)
            for cut, each in taps.items()
        }
        work = Extraction(source, samples, formats(source, scales, job.settings.cache_dtype))
        start, seen = self.clock(), 0
        with closing(work.stream(rows)) as batches:
            for _, done in batches:
                seen = done
                if self.clock() - start > PROBE_SECONDS:
                    break
        return (self.clock() - start) / seen, taps

    def branch(self, name: TrialName, taps: tuple[Tensor, ...]) -> StepTimes:
        """Measure the times of a branch on taps of these shapes, on one worker."""
        [found] = self.executor.each(partial(self._branch, name), [taps])
        return found

    def _branch(self, name: TrialName, taps: tuple[Tensor, ...]) -> StepTimes:
        job, size = self.job, self.job.settings.batch_size
        features = job.backbone.features(name.cut)
        statistics = [
            (values.mean(dim=0).double(), values.std(dim=0, correction=0).double())
            for values in (by_channel(tap.float().cpu()) for tap in taps)
        ]
        learner = job.recipe.learner(name, features, statistics)
        rows = torch.arange(max(size, JUDGE_BATCH_SIZE)) % len(taps[0])
        many = tuple(tap.clone()[rows.to(tap.device)] for tap in taps)
        targets = job.train.targets[torch.arange(len(rows)) % len(job.train.targets)]
        targets = targets.to(job.device)
        learner.begin_epoch()
        learn = partial(learner.learn, tuple(tap[:size] for tap in many), targets[:size], 0)
        judged = tuple(tap[:JUDGE_BATCH_SIZE] for tap in many)
        judge = partial(learner.judge, judged, targets[:JUDGE_BATCH_SIZE])
        times = StepTimes(self._timed(learn), self._timed(judge) / len(judged[0]))
        if learner.failure is not None:
            raise DataError(f"{name} would fail: {learner.failure}. Change the branch or its data.")
        return times

    def _timed(self, step: Callable[[], None]) -> float:
        """Mean time of a few calls, after a first one that is not counted."""
        finish, done = wait_for(self.job.device), 0
        step()
        finish()
        start = self.clock()
        while done < 2 or (done < 20 and self.clock() - start < PROBE_SECONDS / 8):
            step()
            done += 1
        finish()
        return (self.clock() - start) / done
