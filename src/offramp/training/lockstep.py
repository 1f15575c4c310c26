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
from offramp.training.ledger import Ledger
from offramp.training.settings import TrainSettings
from offramp.training.supply import Supply
from offramp.training.trainee import Trainee

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


def train_together(trainees: Sequence[Trainee], bench: Bench) -> None:
    """Train until all are done; after each epoch their states are on disk.

    Workers take the trainees in the order given, so put those with the longest steps first.
    """
    while waiting := [trainee for trainee in trainees if not trainee.done]:
        epoch = 1 + min(trainee.epoch for trainee in waiting)
        active = [trainee for trainee in waiting if trainee.epoch == epoch - 1]
        _run_epoch(active, bench, epoch)
        _judge(active, bench, epoch)
        for trainee in active:
            trainee.end_epoch()
            bench.ledger.record(trainee)


def _run_epoch(trainees: Sequence[Trainee], bench: Bench, epoch: int) -> None:
    total, size = len(bench.train), bench.settings.batch_size
    what = f"{_where(bench.train.cuts)}: epoch {epoch}/{bench.settings.epochs}, {_count(trainees)}"
    order = epoch_order(total, bench.settings.data_seed, epoch)
    for trainee in trainees:
        trainee.begin_epoch()
    first = (epoch - 1) * -(-total // size)
    done = 0
    bench.progress(what, done, total)
    read = bench.workers.stream(lambda rows: bench.train.read(rows, epoch), _slices(order, size))
    for step, (taps, targets) in enumerate(read, first):
        bench.workers.each(partial(_learn, taps=taps, targets=targets, step=step), trainees)
        done += len(targets)
        bench.progress(what, done, total)


def _judge(trainees: Sequence[Trainee], bench: Bench, epoch: int) -> None:
    order = np.arange(len(bench.validation))
    read = bench.workers.stream(
        lambda rows: bench.validation.read(rows, epoch), _slices(order, JUDGE_BATCH_SIZE)
    )
    for taps, targets in read:
        bench.workers.each(partial(_judge_one, taps=taps, targets=targets), trainees)


def _learn(trainee: Trainee, taps: Taps, targets: Tensor, step: int) -> None:
    trainee.learn(taps[trainee.cut], targets, step)


def _judge_one(trainee: Trainee, taps: Taps, targets: Tensor) -> None:
    trainee.judge(taps[trainee.cut], targets)


def _where(cuts: Sequence[str]) -> str:
    return cuts[0] if len(cuts) == 1 else f"{len(cuts)} cuts"


def _count(trainees: Sequence[Trainee]) -> str:
    count = sum(not learner.done for trainee in trainees for learner in trainee.learners)
    return "1 branch" if count == 1 else f"{count} branches"


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
