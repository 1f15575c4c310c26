"""Answers of branches and backbone on samples, from one pass of the backbone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.answering.inputs import NONE, Numbers, absent_of, refusal
from offramp.backbones.stage import Partly
from offramp.backbones.staged import StagedBackbone
from offramp.branches.predictor import score_of
from offramp.data import Samples
from offramp.errors import OfframpError, ShapeError
from offramp.multiexit.absent import check_batch, refusing, taps_without
from offramp.multiexit.costs import ExitTimings, exit_flops
from offramp.multiexit.trial import Trial
from offramp.outputs import ExitOutputs
from offramp.progress import Progress
from offramp.spec import FINAL
from offramp.task import Task, num_answers, surest, training_labels


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of the branches of T trials, and of the backbone, on N samples.

    Attributes:
        trials: The T trials.
        by_branch: Answers of the branches, (T, N, K).
        scores: Scores of their error predictors, (T, N); NaN for a branch without one.
        last: Answers of the backbone, (N, K); None where an input that it needs was left out.
    """

    trials: tuple[Trial, ...]
    by_branch: NDArray[np.float32]
    scores: NDArray[np.float64]
    last: NDArray[np.float32] | None

    @property
    def final(self) -> NDArray[np.float32]:
        """Answers of the backbone, (N, K).

        Raises:
            OfframpError: An input that it needs was left out.
        """
        if self.last is None:
            raise OfframpError("the backbone has not answered: an input that it needs is left out.")
        return self.last

    def of(self, trials: Sequence[Trial]) -> "Answers":
        """The answers of some of these trials, in the order given."""
        places = {id(trial): place for place, trial in enumerate(self.trials)}
        rows = [places[id(trial)] for trial in trials]
        return Answers(tuple(trials), self.by_branch[rows], self.scores[rows], self.last)


def answer_samples(
    backbone: StagedBackbone,
    trials: Sequence[Trial],
    samples: Samples,
    task: Task,
    batch_size: int,
    what: str,
    progress: Progress,
    without: Numbers = NONE,
) -> Answers:
    """One pass of the backbone that feeds every one of `trials`; arguments as MultiExit.answer."""
    count, outputs = len(samples), num_answers(backbone.output_shape, task)
    by_branch = np.empty((len(trials), count, outputs), np.float32)
    scores = np.full((len(trials), count), np.nan)
    whole = not backbone.inputs.of_answer & without
    final = np.empty((count, outputs), np.float32) if whole else None
    at_cut: dict[str, list[int]] = {name: [] for name in backbone.cuts}
    for index, trial in enumerate(trials):
        at_cut[trial.cut].append(index)
    names = (*backbone.cuts, FINAL)
    end = len(names) if whole else 1 + max(names.index(trial.cut) for trial in trials)
    done = 0
    branches = [trial.branch for trial in trials]
    device = device_of(backbone, *branches)
    with torch.inference_mode(), evaluating(branches):
        for batch in samples.batches(batch_size):
            check_batch(backbone, trials, samples, batch, without)
            live = as_inputs(backbone, _but(batch.values, without), device)
            rows = slice(done, done + len(batch))
            for name, stage in zip(names[:end], backbone.stages[:end], strict=True):
                live, taps = stage(live)
                for index in at_cut.get(name, ()):
                    read = taps_without(backbone, name, taps, batch.present)
                    answer, prediction = trials[index].answer(read)
                    by_branch[index, rows] = as_rows(answer)
                    if prediction is not None:
                        scores[index, rows] = as_rows(score_of(prediction, task))
            if final is not None:
                final[rows] = as_rows(_last(live, task))
            done = rows.stop
            progress(what, done, count)
    return Answers(tuple(trials), by_branch, scores, final)


def walk_exits(
    backbone: StagedBackbone, chosen: Mapping[str, Trial], task: Task, inputs: Partly
) -> Iterator[tuple[str, Tensor]]:
    """Answers (B, K) exit by exit; arguments and errors are those of `MultiExit.walk`."""
    names, refused = (
        (*backbone.cuts, FINAL),
        refusing(backbone.inputs, chosen.values(), absent_of(inputs)),
    )
    waiting = [name for name in (*chosen, FINAL) if name not in refused]
    answered: list[str] = []
    live = inputs
    for name, stage in zip(names, backbone.stages, strict=True):
        if not waiting:
            break
        live, taps = stage(live)
        if name == waiting[0]:
            answered.append(waiting.pop(0))
            if name == FINAL:
                yield name, _last(live, task)
            else:
                yield name, chosen[name].answer(taps_without(backbone, name, taps))[0]
    if refused:
        raise refusal(backbone.inputs.names, refused, answered)


def gathered(
    backbone: StagedBackbone,
    task: Task,
    answers: Answers,
    samples: Samples,
    timings: ExitTimings | None,
    without: Numbers,
    source: Mapping[str, Any],
) -> ExitOutputs:
    """Answers to all of `samples` as plain arrays, with the costs of the exits."""
    final = [] if answers.last is None else [answers.last]
    outputs = np.stack([*answers.by_branch, *final])
    stage_flops, branch_flops = exit_flops(backbone, answers.trials, without)
    scores = None
    if answers.trials and all(trial.predicts_error for trial in answers.trials):
        scores = np.stack([*answers.scores, *(np.full(len(each), surest(task)) for each in final)])
    return ExitOutputs(
        outputs=outputs,
        labels=training_labels(samples.targets, outputs.shape[-1], task=task),
        task=task,
        stage_flops=np.array(stage_flops, np.int64),
        branch_flops=np.array(branch_flops, np.int64),
        names=(*(trial.cut for trial in answers.trials), *([FINAL] * len(final))),
        stage_ms=None if timings is None else np.array(timings.stage_ms),
        branch_ms=None if timings is None else np.array(timings.branch_ms),
        scores=scores,
        ids=samples.ids,
        groups=samples.groups,
        clusters=samples.clusters,
        source=source,
    )


def _but(inputs: Partly, without: Numbers) -> Partly:
    return tuple(None if place in without else each for place, each in enumerate(inputs))


def _last(live: Partly, task: Task) -> Tensor:
    """The backbone's answer (B, K), behind its last stage."""
    return columns(cast(Tensor, live[0]), task)


def columns(answer: Tensor, task: Task) -> Tensor:
    """A backbone's answer as (B, K), also if it is one value per sample, (B,) or (B, 1).

    In a classification one value is the logit z of the second of two classes. It becomes the logits
    [0, z], whose softmax is the sigmoid of z.
    """
    rows = answer if answer.ndim > 1 else answer.unsqueeze(1)
    if task == "classification" and rows.shape[1] == 1:
        return torch.cat([torch.zeros_like(rows), rows], dim=1)
    return rows


def device_of(*modules: nn.Module) -> torch.device:
    """Device of modules; the CPU if they have no weights."""
    found = next((weight for module in modules for weight in module.parameters()), None)
    return torch.device("cpu") if found is None else found.device


def as_inputs(backbone: StagedBackbone, inputs: Partly, device: torch.device) -> Partly:
    """The inputs of a batch on the device, in the precision of the weights; None stays."""
    expected = backbone.input_shapes
    given = tuple(
        shape if tensor is None else tuple(tensor.shape[1:])
        for tensor, shape in zip_longest(inputs, expected, fillvalue=None)
    )
    if given != expected:
        raise ShapeError(
            f"the model was cut for inputs {expected} (without the batch axis), but the data "
            f"gives {given}. Use the preprocessing that the model was trained with."
        )
    return tuple(
        None
        if tensor is None
        else tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for tensor, dtype in zip(inputs, backbone.input_dtypes, strict=True)
    )


@contextmanager
def evaluating(branches: Sequence[nn.Module]) -> Iterator[None]:
    """Put branches in evaluation mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for branch in branches for module in branch.modules()]
    try:
        for branch in branches:
            branch.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def as_rows(answer: Tensor) -> NDArray[np.float32]:
    """An answer as a plain array."""
    return answer.float().cpu().numpy()
