"""Answers of branches and backbone on samples, from one pass of the backbone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone
from offramp.branches.predictor import score_of
from offramp.data import Samples
from offramp.errors import ShapeError
from offramp.multiexit.trial import Trial
from offramp.progress import Progress
from offramp.spec import FINAL
from offramp.task import Task, num_answers


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of the branches of T trials, and of the backbone, on N samples.

    Attributes:
        trials: The T trials.
        by_branch: Answers of the branches, (T, N, K).
        scores: Scores of their error predictors, (T, N); NaN for a branch without one.
        final: Answers of the backbone, (N, K).
    """

    trials: tuple[Trial, ...]
    by_branch: NDArray[np.float32]
    scores: NDArray[np.float64]
    final: NDArray[np.float32]

    def of(self, trials: Sequence[Trial]) -> "Answers":
        """The answers of some of these trials, in the order given."""
        places = {id(trial): place for place, trial in enumerate(self.trials)}
        rows = [places[id(trial)] for trial in trials]
        return Answers(tuple(trials), self.by_branch[rows], self.scores[rows], self.final)


def answer_samples(
    backbone: StagedBackbone,
    trials: Sequence[Trial],
    samples: Samples,
    task: Task,
    batch_size: int,
    what: str,
    progress: Progress,
) -> Answers:
    """One pass of the backbone that feeds every one of `trials`; arguments as MultiExit.answer."""
    count, outputs = len(samples), num_answers(backbone.output_shape, task)
    by_branch = np.empty((len(trials), count, outputs), np.float32)
    scores = np.full((len(trials), count), np.nan)
    final = np.empty((count, outputs), np.float32)
    at_cut: dict[str, list[int]] = {name: [] for name in backbone.cuts}
    for index, trial in enumerate(trials):
        at_cut[trial.cut].append(index)
    done = 0
    branches = [trial.branch for trial in trials]
    device = device_of(backbone, *branches)
    with torch.inference_mode(), evaluating(branches):
        for batch in samples.batches(batch_size):
            live = as_inputs(backbone, batch.inputs, device)
            rows = slice(done, done + len(batch))
            for name, stage in zip((*backbone.cuts, FINAL), backbone.stages, strict=True):
                live, taps = stage(live)
                for index in at_cut.get(name, ()):
                    answer, prediction = trials[index].answer(taps)
                    by_branch[index, rows] = as_rows(answer)
                    if prediction is not None:
                        scores[index, rows] = as_rows(score_of(prediction, task))
            final[rows] = as_rows(columns(live[0], task))
            done = rows.stop
            progress(what, done, count)
    return Answers(tuple(trials), by_branch, scores, final)


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


def as_inputs(
    backbone: StagedBackbone, inputs: tuple[Tensor, ...], device: torch.device
) -> tuple[Tensor, ...]:
    """The inputs of a batch on the device, in the precision of the weights."""
    expected = backbone.input_shapes
    given = tuple(tuple(tensor.shape[1:]) for tensor in inputs)
    if given != expected:
        raise ShapeError(
            f"the model was cut for inputs {expected} (without the batch axis), but the data "
            f"gives {given}. Use the preprocessing that the model was trained with."
        )
    return tuple(
        tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
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
