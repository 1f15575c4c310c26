"""Measurements on the model: milliseconds, and answers of exits, trials and rivals."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from offramp.compute import count_flops, count_params, wait_for
from offramp.cost import Timing, joined
from offramp.data import Samples, Splits, as_samples
from offramp.doubts import doubts_of_answers, doubts_of_labels
from offramp.evaluation import Rival, TrialOutputs
from offramp.multiexit.answers import Answers
from offramp.multiexit.model import ExitTimings, MultiExit
from offramp.outputs import ExitOutputs
from offramp.progress import Progress, silent
from offramp.run.plan import EvaluatePlan
from offramp.run.rivals import BATCH_SIZE, static_rivals, why_no_rivals
from offramp.spec import FINAL
from offramp.task import training_labels
from offramp.timing import measure_ms

ANSWERED = ("validation", "calibration", "test")
"""Splits that exits answer, if they exist; every trial answers the last one."""
_EARLY_SAMPLES = 32


@dataclass(frozen=True)
class ModelTimings:
    """Times of one sample on the model's device.

    Attributes:
        stages: Time of each stage of the backbone.
        branches: Time of each branch, by cut and label.
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
        ends = (*model.backbone.cuts, FINAL)
        stage_ms = joined(ends, tuple(model.chosen), [t.median_ms for t in self.stages])
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
    inputs = zip(model.backbone.input_shapes, model.backbone.input_dtypes, strict=True)
    live = tuple(torch.zeros(1, *shape, dtype=dtype, device=device) for shape, dtype in inputs)
    with torch.inference_mode():
        for index, stage in enumerate(model.backbone.stages):
            stages.append(timed(partial(stage, live), index + 1))
            live, _ = stage(live)
        for index, (key, trial) in enumerate(distinct.items()):
            taps = model.backbone.zero_taps(trial.cut, device)
            branches[key] = timed(partial(trial.branch, *taps), len(stages) + index + 1)
    return ModelTimings(tuple(stages), branches)


@dataclass(frozen=True, eq=False)
class Measured:
    """All measurements of a model.

    Attributes:
        outputs: Outputs of the chosen branches, by split.
        trials: Outputs of every branch on the test samples.
        rivals: Results of the whole backbone on smaller test pictures.
        timings: Times of stages and branches, if they were measured.
        notes: What was left out, and why.
        doubts: Warnings about training labels and test answers that look like a mistake.
        quiet: Outputs without an input, by split and name of the input, for each input that some
            of the chosen branches can do without.
    """

    outputs: Mapping[str, ExitOutputs]
    trials: TrialOutputs
    rivals: Sequence[Rival]
    timings: ModelTimings | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    quiet: Mapping[tuple[str, str], ExitOutputs] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """Where a run computes, its clock, and what it reports progress to.

    Attributes:
        device: Device for answers and times.
        progress: Called with the state of each kind of work.
        clock: In seconds.
    """

    device: str = "cpu"
    progress: Progress = silent
    clock: Callable[[], float] = time.perf_counter


def answered(splits: Splits) -> dict[str, Samples]:
    """Samples of the splits that are answered, by name, the test split last."""
    named = splits.named()
    return {name: named[name] for name in ANSWERED if name in named}


def measure_splits(
    model: MultiExit, splits: Splits, wanted: EvaluatePlan, context: RunContext
) -> Measured:
    """Move a model to the device, time it, and collect answers of its exits, trials and rivals.

    Each split goes through the backbone once, calibration and test samples once more for each input
    that some exits can do without, as far as these exits need.
    """
    model.to(context.device)
    timings = _timings(model, wanted, context)
    exit_timings = None if timings is None else timings.of_exits(model)
    progress, outputs, chosen = context.progress, {}, tuple(model.chosen.values())
    for name, samples in answered(splits).items():
        trials = chosen if name != "test" else tuple(dict.fromkeys((*model.trials, *chosen)))
        answers = model.answer(samples, trials, BATCH_SIZE, name, progress)
        outputs[name] = model.as_outputs(answers, samples, exit_timings, name)
    if note := why_no_rivals(splits.test, wanted.rival_sizes):
        rivals = []
    else:
        rivals = static_rivals(
            model,
            splits.train,
            splits.test,
            wanted.rival_sizes,
            train_images=wanted.rival_images,
            progress=progress,
        )
    of_trials = trial_outputs(model, answers, samples, timings)
    return Measured(
        outputs,
        of_trials,
        rivals,
        timings,
        (note,) if note else (),
        (
            *splits.warnings,
            *_doubts_of_training(model, splits.train),
            *doubts_of_answers(outputs["test"]),
        ),
        _without_inputs(model, splits, progress),
    )


def _without_inputs(
    model: MultiExit, splits: Splits, progress: Progress
) -> dict[tuple[str, str], ExitOutputs]:
    """Outputs without each input that some exits, but not all, can do without."""
    names, found = model.backbone.inputs.names, {}
    some = [name for name in names if 0 < len(model.exits_without(name)) < len(model.names)]
    for split, samples in answered(splits).items():
        for name in some if split != "validation" else ():
            found[split, name] = model.collect(
                samples,
                without=name,
                batch_size=BATCH_SIZE,
                split=f"{split}, no {name}",
                progress=progress,
            )
    return found


def doubts_before_training(model: MultiExit, validation: Samples) -> tuple[str, ...]:
    """Warnings about the backbone's own answers on a few validation samples.

    The model stays on its device, where training expects it.
    """
    some = validation.sample(_EARLY_SAMPLES, 0)
    answers = model.answer(some, (), BATCH_SIZE, "a few validation samples", silent)
    doubts = doubts_of_answers(model.as_outputs(answers, some, None, "validation"))
    return tuple(f"before training, on {len(some)} validation samples: {each}" for each in doubts)


def _doubts_of_training(model: MultiExit, train: Samples) -> tuple[str, ...]:
    if model.task == "regression":
        return ()
    labels = training_labels(train.targets, model.num_outputs)
    return doubts_of_labels(labels, model.num_outputs, model.info.class_names)


def _timings(model: MultiExit, wanted: EvaluatePlan, context: RunContext) -> ModelTimings | None:
    if not wanted.timing_repeats:
        return None
    return measure_model(
        model,
        warmup=wanted.timing_warmup,
        repeats=wanted.timing_repeats,
        clock=context.clock,
        progress=context.progress,
    )


def collect_trials(
    model: MultiExit,
    data: Any,
    *,
    timings: ModelTimings | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
) -> TrialOutputs:
    """Collect the answers of every trial in one pass of the backbone."""
    samples = as_samples(data)
    answers = model.answer(samples, model.trials, batch_size, "test, every trial", progress)
    return trial_outputs(model, answers, samples, timings)


def trial_outputs(
    model: MultiExit, answers: Answers, samples: Samples, timings: ModelTimings | None
) -> TrialOutputs:
    """The trials' part of the answers to all of `samples`, with sizes and costs."""
    trials, backbone = model.trials, model.backbone
    labels = [trial.label for trial in trials]
    branch_ms = stage_ms = None
    if timings is not None:
        branch_ms = np.array([timings.branches[t.cut, t.spec.label()].median_ms for t in trials])
        stage_ms = np.array([timing.median_ms for timing in timings.stages])
    flops = [count_flops(trial.branch, backbone.zero_taps(trial.cut)) for trial in trials]
    return TrialOutputs(
        outputs=answers.of(trials).by_branch,
        final=answers.final,
        labels=training_labels(samples.targets, model.num_outputs, task=model.task),
        task=model.task,
        cuts=np.array([trial.cut for trial in trials]),
        branches=np.array(labels),
        kinds=np.array([trial.spec.kind for trial in trials]),
        seeds=np.array([trial.seed for trial in trials], np.int64),
        params=np.array([count_params(trial.branch) for trial in trials], np.int64),
        branch_flops=np.array(flops, np.int64),
        branch_ms=branch_ms,
        cut_names=np.array(backbone.cuts),
        stage_flops=np.array(backbone.stage_flops(), np.int64),
        stage_ms=stage_ms,
        ids=samples.ids,
        clusters=samples.clusters,
        source={"class_names": list(model.info.class_names)},
    )
