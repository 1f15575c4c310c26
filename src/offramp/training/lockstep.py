"""Lockstep: branches that share batches and nothing else.

A batch of taps is read and converted once for all of them, and workers take the branches' steps on
it side by side. Each branch keeps its own epoch count, so a resumed one that is ahead waits for the
others, and one that has stopped costs nothing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from offramp.compute import random_stream
from offramp.features import Taps
from offramp.progress import Progress
from offramp.training.learner import Learner
from offramp.training.settings import TrainSettings
from offramp.training.state import State
from offramp.training.supply import Supply

JUDGE_BATCH_SIZE = 128

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """Does pieces of work, side by side or not."""

    def each(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
        """Results of all items, in order."""

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Results in order as they are asked for."""


class InTurn:
    """Workers that are the calling thread alone."""

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of all items, in order."""
        return list(map(work, items))

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order as they are asked for."""
        return map(work, items)


class SharedProgress:
    """Progress of all branches of a call as one count of samples, from any thread.

    Whoever calls it is stopped once one of them has failed: `guard` passes an exception on to the
    others, so that none trains on for a call that has ended.

    Attributes:
        total: Samples that all branches see in all epochs; one that stops early sees fewer.
    """

    def __init__(self, progress: Progress, num_branches: int, samples_each: int) -> None:
        self._progress, self._each = progress, samples_each
        self.total = num_branches * samples_each
        self._what = f"training {num_branches} branches"
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped: BaseException | None = None

    def __call__(self, learners: Sequence[Learner], what: str, done: int) -> None:
        """Tell that each of these branches has seen `done` samples.

        Raises:
            BaseException: What another thread, or the caller's progress, raised.
        """
        self.check()
        with self._lock, self.guard():
            self._done |= dict.fromkeys((str(learner.name) for learner in learners), done)
            self._progress(f"{self._what}: {what}", sum(self._done.values()), self.total)

    def skip(self, learner: Learner) -> None:
        """Count a branch that an earlier call has finished, without a word."""
        with self._lock:
            self._done[str(learner.name)] = self._each

    def finish(self, learner: Learner) -> None:
        """Count a branch that has stopped as if it had seen all samples."""
        end = "done" if learner.failure is None else f"failed: {learner.failure}"
        self([learner], f"{learner.name}, {end}", self._each)

    def check(self) -> None:
        """Raise what another thread raised, if any did."""
        if self._stopped is not None:
            raise self._stopped

    @contextmanager
    def guard(self) -> Iterator[None]:
        """An exception in here stops the other threads too, at their next step."""
        try:
            yield
        except BaseException as error:
            self._stopped = self._stopped or error
            raise


@dataclass(frozen=True, eq=False)
class Setup:
    """What branches train on and with."""

    train: Supply
    validation: Supply
    settings: TrainSettings
    workers: Workers
    report: SharedProgress


def train_together(states: Mapping[Learner, State], setup: Setup) -> None:
    """Train until all are done; after each epoch their states are on disk.

    Workers take the learners in the order given, so put those with the longest steps first.
    """
    while waiting := [learner for learner in states if not learner.done]:
        epoch = 1 + min(learner.epoch for learner in waiting)
        active = [learner for learner in waiting if learner.epoch == epoch - 1]
        _run_epoch(active, setup, epoch)
        _judge(active, setup, epoch)
        for learner in active:
            learner.end_epoch()
            states[learner].record(learner)
            if learner.done:
                setup.report.finish(learner)


def _run_epoch(learners: Sequence[Learner], setup: Setup, epoch: int) -> None:
    total, size = len(setup.train), setup.settings.batch_size
    who = str(learners[0].name) if len(learners) == 1 else f"{len(learners)} side by side"
    what = f"{who}, epoch {epoch}/{setup.settings.epochs}"
    order = epoch_order(total, setup.settings.data_seed, epoch)
    for learner in learners:
        learner.begin_epoch()
    first = (epoch - 1) * -(-total // size)
    done = (epoch - 1) * total
    setup.report(learners, what, done)
    read = setup.workers.stream(lambda rows: setup.train.read(rows, epoch), _slices(order, size))
    for step, (taps, targets) in enumerate(read, first):
        setup.workers.each(partial(_learn, taps=taps, targets=targets, step=step), learners)
        done += len(targets)
        setup.report(learners, what, done)


def _judge(learners: Sequence[Learner], setup: Setup, epoch: int) -> None:
    order = np.arange(len(setup.validation))
    read = setup.workers.stream(
        lambda rows: setup.validation.read(rows, epoch), _slices(order, JUDGE_BATCH_SIZE)
    )
    for taps, targets in read:
        setup.report.check()
        setup.workers.each(partial(_judge_one, taps=taps, targets=targets), learners)


def _learn(learner: Learner, taps: Taps, targets: Tensor, step: int) -> None:
    learner.learn(taps[learner.cut], targets, step)


def _judge_one(learner: Learner, taps: Taps, targets: Tensor) -> None:
    learner.judge(taps[learner.cut], targets)


def _slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
