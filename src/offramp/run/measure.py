"""Measurements that need the model itself: milliseconds, and what every trial answers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from offramp.compute import count_flops, count_params, wait_for
from offramp.cost import Timing
from offramp.data import as_samples
from offramp.evaluation.trials import TrialOutputs
from offramp.multiexit.model import ExitTimings, MultiExit, joined_per_exit
from offramp.multiexit.trial import Trial
from offramp.progress import Progress, silent
from offramp.timing import measure_ms


@dataclass(frozen=True)
class ModelTimings:
    """Times of one sample on the device where the model is.

    Attributes:
        stages: One per stage of the backbone.
        branches: By (cut, label of the branch).
    """

    stages: tuple[Timing, ...]
    branches: Mapping[tuple[str, str], Timing]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, spread included."""
        return {
            "stages": [asdict(timing) for timing in self.stages],
            "branches": [
                {"cut": cut, "branch": branch, **asdict(timing)}
                for (cut, branch), timing in self.branches.items()
            ],
        }

    def of_exits(self, model: MultiExit) -> ExitTimings:
        """Medians between the exits of `model`, for `MultiExit.collect`."""
        stage_ms = joined_per_exit(
            model.backbone, tuple(model.chosen), [t.median_ms for t in self.stages]
        )
        branch_ms = [
            self.branches[trial.cut, trial.spec.label()].median_ms
            for trial in model.chosen.values()
        ]
        return ExitTimings(stage_ms, (*branch_ms, 0.0))


def measure_model(
    model: MultiExit,
    *,
    warmup: int = 5,
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = silent,
) -> ModelTimings:
    """Time each stage and each distinct branch alone, batch 1, on inputs of zeros."""
    device = model.device
    distinct = {(trial.cut, trial.spec.label()): trial for trial in model.trials}
    total = len(model.backbone.stages) + len(distinct)

    def timed(call: Callable[[], Any], done: int) -> Timing:
        timing = measure_ms(
            call, warmup=warmup, repeats=repeats, clock=clock, finish=wait_for(device)
        )
        progress("milliseconds", done, total)
        return timing

    stages, branches = [], {}
    live = tuple(torch.zeros(1, *s, device=device) for s in model.backbone.input_shapes)
    with torch.inference_mode():
        for index, stage in enumerate(model.backbone.stages):
            stages.append(timed(partial(stage, live), index + 1))
            live, _ = stage(live)
        for index, (key, trial) in enumerate(distinct.items()):
            taps = model.backbone.zero_taps(trial.cut, device)
            branches[key] = timed(partial(trial.branch, *taps), len(stages) + index + 1)
    return ModelTimings(tuple(stages), branches)


def collect_trials(
    model: MultiExit,
    data: Any,
    *,
    timings: ModelTimings | None = None,
    batch_size: int = 64,
    progress: Progress = silent,
) -> TrialOutputs:
    """What every trained branch of every seed answers, in one pass of the backbone."""
    samples = as_samples(data)
    trials = model.trials
    answers = model.answer(samples, trials, batch_size, "test, every trial", progress)
    labels = [trial.spec.label() for trial in trials]
    return TrialOutputs(
        outputs=answers.by_branch,
        final=answers.final,
        labels=samples.targets,
        task=model.task,
        cuts=np.array([trial.cut for trial in trials]),
        branches=np.array(labels),
        kinds=np.array([trial.spec.kind for trial in trials]),
        seeds=np.array([trial.seed for trial in trials], np.int64),
        params=np.array([count_params(trial.branch) for trial in trials], np.int64),
        branch_flops=np.array([_flops(model, trial) for trial in trials], np.int64),
        branch_ms=None
        if timings is None
        else np.array([timings.branches[t.cut, t.spec.label()].median_ms for t in trials]),
        cut_names=np.array(model.backbone.cuts),
        stage_flops=np.array(model.backbone.stage_flops(), np.int64),
        stage_ms=None
        if timings is None
        else np.array([timing.median_ms for timing in timings.stages]),
        ids=samples.ids,
        clusters=samples.clusters,
    )


def _flops(model: MultiExit, trial: Trial) -> int:
    return count_flops(trial.branch, model.backbone.zero_taps(trial.cut))
