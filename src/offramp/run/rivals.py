"""Static rivals: the whole backbone on smaller pictures, the honest test whether exits pay."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from offramp.compute import count_flops
from offramp.data import Samples
from offramp.data.images import at_size
from offramp.errors import DataError
from offramp.evaluation import Rival
from offramp.multiexit.model import MultiExit
from offramp.progress import Progress, silent

BATCH_SIZE = 64
SAMPLE_SEED = 0
"""Of the training images that batch-norm statistics are estimated on."""


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
        model: Its backbone is copied, never changed.
        train: Images for the new statistics.
        test: Images for the accuracy.
        sizes: Sides of square inputs, in pixels.
        train_images: How many of `train` are used.
        progress: Told after each batch.
    """
    rivals = []
    for side in sizes:
        small_test, small_train = at_size(test, side, side), at_size(train, side, side)
        module = copy.deepcopy(model.backbone.original).to(model.device).eval()
        zeros = tuple(torch.zeros(1, *shape) for shape in small_test.input_shapes)
        flops = count_flops(module, zeros)

        def rival(name: str, note: str) -> Rival:
            answers = _answers(module, small_test, model.device, name, progress)  # noqa: B023 called at once
            return Rival.measured(
                name,
                answers,
                test.targets,
                flops=flops,  # noqa: B023
                resolution=side,  # noqa: B023
                note=note,
            )

        rivals.append(rival(f"{side} px", "whole backbone, not retrained"))
        if _batch_norms(module):
            _estimate_statistics(module, small_train, model.device, train_images, side, progress)
            used = min(train_images, len(train)) // BATCH_SIZE * BATCH_SIZE
            note = f"batch-norm statistics re-estimated on {used} training images"
            rivals.append(rival(f"{side} px, new statistics", note))
    return rivals


@torch.inference_mode()
def _answers(
    module: nn.Module, data: Samples, device: torch.device, what: str, progress: Progress
) -> NDArray[np.float32]:
    """Outputs (N, K)."""
    rows, done = [], 0
    for batch in data.batches(BATCH_SIZE):
        rows.append(module(batch.inputs[0].to(device)).float().cpu().numpy())
        done += len(batch)
        progress(f"rival {what}", done, len(data))
    return np.concatenate(rows)


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def _estimate_statistics(
    module: nn.Module,
    data: Samples,
    device: torch.device,
    images: int,
    side: int,
    progress: Progress,
) -> None:
    """Cumulative averages over all batches; everything but batch norm stays in evaluation mode."""
    norms = _batch_norms(module)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    given = min(images, len(data))
    if given < BATCH_SIZE:
        raise DataError(
            f"{given} training images are too few to re-estimate batch-norm statistics; "
            f"give at least {BATCH_SIZE}, or leave evaluate.rival_sizes empty."
        )
    mixed = data.sample(images, SAMPLE_SEED, shuffled=True)  # a batch of one class has its own mean
    whole = len(mixed) // BATCH_SIZE * BATCH_SIZE
    for done, batch in enumerate(mixed.batches(BATCH_SIZE, order=range(whole)), start=1):
        module(batch.inputs[0].to(device))
        progress(f"statistics at {side} px", done * BATCH_SIZE, whole)
    module.eval()
