"""Lockstep: branches at one cut that share batches and nothing else.

A batch of taps is read and converted once for all of them, and workers take the branches' steps on
it side by side. Each branch keeps its own epoch count,
so a resumed one that is ahead waits for the others, and one that has stopped costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.compute import random_stream
from offramp.features import FeatureCache, Workers
from offramp.progress import Progress
from offramp.training.learner import Learner
from offramp.training.ledger import Ledger
from offramp.training.settings import TrainSettings

JUDGE_BATCH_SIZE = 128


@dataclass(frozen=True, eq=False)
class TapSet:
    """Taps of one cut with their targets (N,), batch by batch on a device."""

    cache: FeatureCache
    cut: str
    targets: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, rows: NDArray[np.int64]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Taps, each (B, ...), and targets (B,) of these samples."""
        taps = tuple(tap.to(self.device) for tap in self.cache.batch(self.cut, rows))
        return taps, self.targets[torch.from_numpy(rows)].to(self.device)


@dataclass(frozen=True, eq=False)
class Bench:
    """What branches at one cut train on and with."""

    train: TapSet
    validation: TapSet
    settings: TrainSettings
    workers: Workers
    ledger: Ledger
    progress: Progress


def train_together(learners: Sequence[Learner], bench: Bench) -> None:
    """Train until every learner is done; after each epoch its state is on disk."""
    while waiting := [learner for learner in learners if not learner.done]:
        epoch = 1 + min(learner.plateau.epoch for learner in waiting)
        active = [learner for learner in waiting if learner.plateau.epoch == epoch - 1]
        _run_epoch(active, bench, epoch)
        _judge(active, bench)
        for learner in active:
            learner.end_epoch()
            bench.ledger.record(learner)


def _run_epoch(learners: Sequence[Learner], bench: Bench, epoch: int) -> None:
    total, size = len(bench.train), bench.settings.batch_size
    what = f"{bench.train.cut}: epoch {epoch}/{bench.settings.epochs}, {len(learners)} branches"
    order = epoch_order(total, bench.settings.data_seed, epoch)
    for learner in learners:
        learner.begin_epoch()
    first = (epoch - 1) * -(-total // size)
    done = 0
    read = bench.workers.stream(bench.train.read, _slices(order, size))
    for step, (taps, targets) in enumerate(read, first):
        bench.workers.each(partial(Learner.learn, taps=taps, targets=targets, step=step), learners)
        done += len(targets)
        bench.progress(what, done, total)


def _judge(learners: Sequence[Learner], bench: Bench) -> None:
    order = np.arange(len(bench.validation))
    read = bench.workers.stream(bench.validation.read, _slices(order, JUDGE_BATCH_SIZE))
    for taps, targets in read:
        bench.workers.each(partial(Learner.judge, taps=taps, targets=targets), learners)


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
