"""Static rivals: the whole backbone on smaller pictures, to test whether exits pay."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from offramp.backbones.frozen import frozen_copy
from offramp.compute import count_flops
from offramp.data import Samples
from offramp.data.images import at_size
from offramp.data.images.pictures import PictureSource
from offramp.errors import DataError, PlanError
from offramp.evaluation import Rival
from offramp.multiexit.answers import columns
from offramp.multiexit.model import MultiExit
from offramp.progress import Progress, silent
from offramp.task import Task, training_labels

BATCH_SIZE = 64
SAMPLE_SEED = 0
"""Seed for drawing the training images of new batch-norm statistics."""


def why_no_rivals(samples: Samples, sizes: Sequence[int]) -> str | None:
    """Reason why static rivals cannot be tried on these samples; None if there is none."""
    if not sizes or isinstance(samples.source, PictureSource):
        return None
    count = len(samples.input_shapes)
    return (
        "Static rivals were skipped: they are the backbone on smaller pictures, and a sample here "
        f"{'has' if count > 1 else 'is'} {f'{count} inputs' if count > 1 else 'not a picture'}."
    )


def check_rivals(
    module: nn.Module, train: Samples, sizes: Sequence[int], train_images: int
) -> None:
    """Refuse, before anything is trained, rivals that could not be tried afterwards.

    Raises:
        PlanError: The backbone does not run on pictures of a size.
        DataError: There are too few training pictures for new statistics.
    """
    if not sizes or why_no_rivals(train, sizes):
        return
    module = frozen_copy(module)
    for side in sizes:
        shapes = at_size(train, side).input_shapes
        try:
            count_flops(module, tuple(torch.zeros(1, *shape) for shape in shapes))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise PlanError(
                f"the backbone does not run on {side}x{side} pictures, which rival_sizes asks for "
                f"({error}). Choose larger sizes, or leave rival_sizes empty."
            ) from error
    if _batch_norms(module):
        _check_enough(min(train_images, len(train)))


def static_rivals(
    model: MultiExit,
    train: Samples,
    test: Samples,
    sizes: Sequence[int],
    *,
    train_images: int = 2000,
    progress: Progress = silent,
) -> list[Rival]:
    """Accuracy and FLOPs of the backbone at each size, as it is and with new statistics.

    Nothing is retrained. "New statistics" re-estimates every batch norm's mean and variance on
    at most `train_images` training images at that size, since they shift with the resolution.
    The images are drawn at random, evenly over the classes.

    Args:
        model: The model, whose backbone is copied.
        train: Pictures for the new statistics.
        test: Pictures for the accuracy.
        sizes: Shorter sides of the inputs, in pixels.
        train_images: Largest number of pictures of `train` to use.
        progress: Called after each batch.

    Raises:
        DataError: There are too few pictures for new statistics, or the samples are not pictures.
    """
    rivals = []
    for side in sizes:
        module = frozen_copy(model.backbone.original).to(model.device)
        smaller = _Smaller(module, model.device, model.task, side, progress)
        pictures = at_size(test, side)
        rivals.append(smaller.rival(f"{side} px", "whole backbone, not retrained", pictures))
        if _batch_norms(module):
            used = smaller.estimate_statistics(at_size(train, side), train_images)
            note = f"batch-norm statistics re-estimated on {used} training images"
            rivals.append(smaller.rival(f"{side} px, new statistics", note, pictures))
    return rivals


@dataclass(frozen=True, eq=False)
class _Smaller:
    """A copy of the backbone that answers on pictures of one size."""

    module: nn.Module
    device: torch.device
    task: Task
    side: int
    progress: Progress

    def rival(self, name: str, note: str, pictures: Samples) -> Rival:
        zeros = tuple(torch.zeros(1, *shape) for shape in pictures.input_shapes)
        answers = self._answers(pictures, name)
        return Rival.measured(
            name,
            answers,
            training_labels(pictures.targets, answers.shape[1], task=self.task),
            flops=count_flops(self.module, zeros),
            resolution=self.side,
            note=note,
            task=self.task,
        )

    @torch.inference_mode()
    def _answers(self, pictures: Samples, name: str) -> NDArray[np.float32]:
        """Outputs (N, K)."""
        rows, done = [], 0
        for batch in pictures.batches(BATCH_SIZE):
            answer = columns(self.module(batch.inputs[0].to(self.device)), self.task)
            rows.append(answer.float().cpu().numpy())
            done += len(batch)
            self.progress(f"rival {name}", done, len(pictures))
        return np.concatenate(rows)

    @torch.no_grad()
    def estimate_statistics(self, pictures: Samples, count: int) -> int:
        """Set the statistics to averages over whole batches; return the number of pictures used.

        Everything but batch norm stays in evaluation mode.
        """
        count = min(count, len(pictures))
        _check_enough(count)
        for norm in _batch_norms(self.module):
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        mixed = pictures.sample(count, SAMPLE_SEED, shuffled=True)  # a class has its own mean
        whole = count // BATCH_SIZE * BATCH_SIZE
        for done, batch in enumerate(mixed.batches(BATCH_SIZE, order=range(whole)), start=1):
            self.module(batch.inputs[0].to(self.device))
            self.progress(f"statistics at {self.side} px", done * BATCH_SIZE, whole)
        self.module.eval()
        return whole


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _check_enough(count: int) -> None:
    if count < BATCH_SIZE:
        raise DataError(
            f"{count} training images are too few to re-estimate batch-norm statistics; "
            f"give at least {BATCH_SIZE}, or leave evaluate.rival_sizes empty."
        )
