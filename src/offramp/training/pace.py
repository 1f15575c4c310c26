"""Pace of a finetuning: seconds for a sample, measured on a few batches."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from offramp.compute import wait_for
from offramp.training.finetune import LoadedBatch, Loader, in_order, readers
from offramp.training.finetuner import Finetuner
from offramp.training.forecast import PROBE_SECONDS, Clock
from offramp.training.lockstep import epoch_order
from offramp.training.settings import StageSettings


@dataclass(frozen=True)
class Pace:
    """Seconds for each sample, with reading it.

    Attributes:
        learn: In training.
        judge: In validation and testing.
    """

    learn: float
    judge: float


def pace_of(
    finetuner: Finetuner,
    train: Loader,
    validation: Loader,
    settings: StageSettings,
    clock: Clock = time.perf_counter,
) -> Pace:
    """Train and validate a few batches. This changes the network.

    Args:
        finetuner: The network.
        train: Samples to train on.
        validation: Samples to validate on.
        settings: Those of the finetuner.
        clock: In seconds.

    Raises:
        DataError: Memory ran out, or samples cannot be read.
        ShapeError: The network failed.
    """
    finetuner.begin_epoch()
    order, size = epoch_order(len(train), settings.data_seed, 1), settings.batch_size
    finish = wait_for(train.device)

    def learn(inputs: tuple[Tensor, ...], targets: Tensor) -> None:
        finetuner.learn(inputs, targets, 0)
        finish()

    def judge(inputs: tuple[Tensor, ...], targets: Tensor) -> None:
        finetuner.judge(inputs, targets)
        finish()

    with readers() as workers:
        learning = _seconds(train.batches(order, size, 1, workers), learn, clock)
    with readers() as workers:  # of their own, as the others still read ahead
        judging = _seconds(in_order(validation, size, workers), judge, clock)
    return Pace(learning, judging)


def _seconds(
    batches: Iterator[LoadedBatch],
    work: Callable[[tuple[Tensor, ...], Tensor], None],
    clock: Clock,
) -> float:
    """Mean seconds for a sample; the first batch counts only if it is long or the only one."""
    start = first = clock()
    seen = warmed = 0
    for inputs, targets in batches:
        work(inputs, targets)
        seen += len(targets)
        if not warmed:
            first, warmed = clock(), seen
        if clock() - start > PROBE_SECONDS:
            break
    if seen == warmed:
        return (first - start) / seen
    return (clock() - first) / (seen - warmed)
