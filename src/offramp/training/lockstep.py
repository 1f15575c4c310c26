"""Lockstep: branches at one cut that share batches and nothing else.

A batch of taps is read and converted once for all of them. Each branch keeps its own epoch count,
so a resumed one that is ahead waits for the others, and one that has stopped costs nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.compute import random_stream
from offramp.features import FeatureCache
from offramp.progress import Progress
from offramp.training.learner import Learner
from offramp.training.ledger import Ledger
from offramp.training.settings import TrainSettings

JUDGE_BATCH_SIZE = 256


@dataclass(frozen=True, eq=False)
class TapSet:
    """Taps of one cut with their targets (N,), batch by batch on a device."""

    cache: FeatureCache
    cut: str
    targets: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, order: NDArray[np.int64], batch_size: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Taps, each (B, ...), and targets (B,) in this order; the last batch may be smaller."""
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            taps = tuple(tap.to(self.device) for tap in self.cache.batch(self.cut, rows))
            yield taps, self.targets[torch.from_numpy(rows)].to(self.device)


def train_together(
    learners: Sequence[Learner],
    train: TapSet,
    validation: TapSet,
    settings: TrainSettings,
    ledger: Ledger,
    progress: Progress,
) -> None:
    """Train until every learner is done; after each epoch its state is on disk."""
    while waiting := [learner for learner in learners if not learner.done]:
        epoch = 1 + min(learner.plateau.epoch for learner in waiting)
        active = [learner for learner in waiting if learner.plateau.epoch == epoch - 1]
        what = f"{train.cut}: epoch {epoch}/{settings.epochs}, {len(active)} branches"
        _run_epoch(active, train, epoch, settings, partial(progress, what))
        _judge(active, validation)
        for learner in active:
            learner.end_epoch()
            ledger.record(learner)


def _run_epoch(
    learners: Sequence[Learner],
    train: TapSet,
    epoch: int,
    settings: TrainSettings,
    report: Callable[[int, int], None],
) -> None:
    order = epoch_order(len(train), settings.data_seed, epoch)
    step = (epoch - 1) * -(-len(train) // settings.batch_size)
    done = 0
    for learner in learners:
        learner.begin_epoch()
    for taps, targets in train.batches(order, settings.batch_size):
        for learner in learners:
            learner.learn(taps, targets, step)
        step, done = step + 1, done + len(targets)
        report(done, len(train))


def _judge(learners: Sequence[Learner], validation: TapSet) -> None:
    for taps, targets in validation.batches(np.arange(len(validation)), JUDGE_BATCH_SIZE):
        for learner in learners:
            learner.judge(taps, targets)


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
