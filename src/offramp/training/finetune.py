"""Finetuning: epochs of a whole network over a data set, which resume after a kill."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.augment import Augment, augmented
from offramp.data.density import maps_of
from offramp.data.samples import Samples
from offramp.features import Executor
from offramp.progress import Progress, silent
from offramp.task import Measure
from offramp.training.finetuner import Finetuner
from offramp.training.lockstep import InTurn, Workers, epoch_order, slices
from offramp.training.settings import StageSettings
from offramp.training.state import load_state, save_state

READERS = 4
"""Threads that read samples ahead of the network."""
LoadedBatch = tuple[tuple[Tensor, ...], Tensor]


@dataclass(frozen=True, eq=False)
class Loader:
    """Inputs and targets of a data set, batch by batch.

    Attributes:
        targets: (N,) classes or values, or None for the maps (h, w) of the samples.
    """

    samples: Samples
    targets: Tensor | None
    device: torch.device
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def batches(
        self, order: NDArray[np.int64], size: int, epoch: int, workers: Workers
    ) -> Iterator[LoadedBatch]:
        """All batches of an epoch, from 1, on the device."""
        samples = self.samples
        if self.augment is not None:
            samples = augmented(samples, self.augment, self.augment.view_in(epoch))

        def read(rows: NDArray[np.int64]) -> LoadedBatch:
            return samples.read(rows).inputs, self._targets(rows)

        chosen: Workers = workers if samples.threadsafe else InTurn()
        for inputs, targets in chosen.stream(read, batch_rows(order, size)):
            yield tuple(each.to(self.device) for each in inputs), targets.to(self.device)

    def _targets(self, rows: NDArray[np.int64]) -> Tensor:
        if self.targets is not None:
            return self.targets[torch.from_numpy(rows)]
        return maps_of(self.samples, rows)


def batch_rows(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of an order. A single sample at the end joins the batch before it.

    Batch norm cannot train on one sample whose map is one cell.
    """
    found = slices(order, size)
    if size > 1 and len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [np.concatenate(found[-2:])]
    return found


@contextmanager
def readers() -> Iterator[Executor]:
    """Threads that read samples."""
    with ThreadPoolExecutor(READERS) as pool:
        try:
            yield Executor(pool, READERS)
        finally:
            pool.shutdown(cancel_futures=True)


def run_epochs(
    finetuner: Finetuner,
    train: Loader,
    validation: Loader,
    settings: StageSettings,
    state: Path,
    workers: Workers,
    measure: Measure,
    progress: Progress = silent,
) -> None:
    """Train until the end, from the saved state if there is one, and keep the best weights.

    Args:
        finetuner: The network.
        train: Samples to train on.
        validation: Samples that decide the learning rate, the end, and which weights are kept.
        settings: Those of the finetuner.
        state: File of the training state, written after each epoch.
        workers: Read samples.
        measure: Names the validation score.
        progress: Called after each batch, and once after each epoch with its validation score.

    Raises:
        DataError: Training diverged, memory ran out, or the state cannot be written.
    """
    load_state(state, finetuner)
    total = len(train) * settings.epochs
    while not finetuner.done:
        epoch = finetuner.epoch + 1
        told = _counter(progress, f"{_WORK[finetuner.name]}: epoch {epoch}/{settings.epochs}")
        done = (epoch - 1) * len(train)
        told(done, total)
        finetuner.begin_epoch()
        order = epoch_order(len(train), settings.data_seed, epoch)
        steps = len(batch_rows(order, settings.batch_size))
        batches = train.batches(order, settings.batch_size, epoch, workers)
        for step, (inputs, targets) in enumerate(batches, (epoch - 1) * steps):
            finetuner.learn(inputs, targets, step)
            done += len(targets)
            told(done, total)
        for inputs, targets in in_order(validation, settings.batch_size, workers):
            finetuner.judge(inputs, targets)
        finetuner.end_epoch()
        save_state(state, finetuner)
        progress(_epoch_text(finetuner, settings.epochs, measure), 1, 1)
    told = _counter(progress, _WORK[finetuner.name])
    told(total, total)
    finetuner.keep()


_WORK = {"density": "finetuning the density maps", "train": "finetuning"}


def _epoch_text(finetuner: Finetuner, epochs: int, measure: Measure) -> str:
    last = finetuner.history[-1]
    found = measure.summary(abs(last.validation_score), last.validation_rmse)
    return f"{_WORK[finetuner.name]}, epoch {last.epoch}/{epochs}: validation {found}"


def in_order(loader: Loader, size: int, workers: Workers) -> Iterator[LoadedBatch]:
    """All samples, in their own order."""
    return loader.batches(np.arange(len(loader)), size, 1, workers)


def _counter(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
