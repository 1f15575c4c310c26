"""Lockstep: branches that share batches and nothing else.

A batch of taps is read and converted once for all of them, and workers take the branches' steps on
it side by side. Each branch keeps its own epoch count, so a resumed one that is ahead waits for the
others, and one that has stopped costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offramp.compute import random_stream
from offramp.features import Executor, Taps
from offramp.progress import Progress
from offramp.training.learner import Learner
from offramp.training.ledger import Ledger
from offramp.training.settings import TrainSettings
from offramp.training.supply import Supply

JUDGE_BATCH_SIZE = 128


@dataclass(frozen=True, eq=False)
class Bench:
    """What branches train on and with."""

    train: Supply
    validation: Supply
    settings: TrainSettings
    workers: Executor
    ledger: Ledger
    progress: Progress


def train_together(learners: Sequence[Learner], bench: Bench) -> None:
    """Train until all are done; after each epoch their states are on disk.

    Workers take the learners in the order given, so put those with the longest steps first.
    """
    while waiting := [learner for learner in learners if not learner.done]:
        epoch = 1 + min(learner.epoch for learner in waiting)
        active = [learner for learner in waiting if learner.epoch == epoch - 1]
        _run_epoch(active, bench, epoch)
        _judge(active, bench, epoch)
        for learner in active:
            learner.end_epoch()
            bench.ledger.record(learner)


def _run_epoch(learners: Sequence[Learner], bench: Bench, epoch: int) -> None:
    total, size = len(bench.train), bench.settings.batch_size
    what = f"{_where(bench.train.cuts)}: epoch {epoch}/{bench.settings.epochs}, {_count(learners)}"
    order = epoch_order(total, bench.settings.data_seed, epoch)
    for learner in learners:
        learner.begin_epoch()
    first = (epoch - 1) * -(-total // size)
    done = 0
    bench.progress(what, done, total)
    read = bench.workers.stream(lambda rows: bench.train.read(rows, epoch), _slices(order, size))
    for step, (taps, targets) in enumerate(read, first):
        bench.workers.each(partial(_learn, taps=taps, targets=targets, step=step), learners)
        done += len(targets)
        bench.progress(what, done, total)


def _judge(learners: Sequence[Learner], bench: Bench, epoch: int) -> None:
    order = np.arange(len(bench.validation))
    read = bench.workers.stream(
        lambda rows: bench.validation.read(rows, epoch), _slices(order, JUDGE_BATCH_SIZE)
    )
    for taps, targets in read:
        bench.workers.each(partial(_judge_one, taps=taps, targets=targets), learners)


def _learn(learner: Learner, taps: Taps, targets: Tensor, step: int) -> None:
    learner.learn(taps[learner.cut], targets, step)


def _judge_one(learner: Learner, taps: Taps, targets: Tensor) -> None:
    learner.judge(taps[learner.cut], targets)


def _where(cuts: Sequence[str]) -> str:
    return cuts[0] if len(cuts) == 1 else f"{len(cuts)} cuts"


def _count(learners: Sequence[Learner]) -> str:
    count = sum(not learner.done for learner in learners)
    return "1 branch" if count == 1 else f"{count} branches"


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
