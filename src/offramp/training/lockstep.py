"""Lockstep: train branches that share their batches, and nothing else.

Each batch of taps is read and converted once for all branches, and workers run the branches' steps
on it in parallel. Each branch counts its own epochs: after resuming, one that is ahead waits for
the others, and one that has stopped is skipped.
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
    """Runs pieces of work, in parallel or not."""

    def each(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> list[Result]:
        """Results of all items, in order."""

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Results in order as they are asked for."""


class InTurn:
    """Workers that run everything in the calling thread."""

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of all items, in order."""
        return list(map(work, items))

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order as they are asked for."""
        return map(work, items)


class SharedProgress:
    """Progress of all branches of a call as one number of samples, reported from any thread.

    If one thread fails, the others stop at their next report: `guard` passes the exception on, so
    that no thread continues for a call that has ended.

    Attributes:
        total: Samples that all branches see if none stops early.
    """

    def __init__(self, progress: Progress, num_branches: int, samples_each: int) -> None:
        self._progress, self._each = progress, samples_each
        self.total = num_branches * samples_each
        self._what = f"training {num_branches} branches"
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stopped: BaseException | None = None

    def __call__(self, learners: Sequence[Learner], what: str, done: int) -> None:
        """Report that each of these branches has seen `done` samples.

        Raises:
            BaseException: Raised by another thread or by the caller's progress function.
        """
        self.check()
        with self._lock, self.guard():
            self._done |= dict.fromkeys((str(learner.name) for learner in learners), done)
            self._progress(f"{self._what}: {what}", sum(self._done.values()), self.total)

    def skip(self, learner: Learner) -> None:
        """Count a branch that an earlier call has finished, without reporting it."""
        with self._lock:
            self._done[str(learner.name)] = self._each

    def finish(self, learner: Learner) -> None:
        """Report a branch that has stopped as if it had seen all samples."""
        end = "done" if learner.failure is None else f"failed: {learner.failure}"
        self([learner], f"{learner.name}, {end}", self._each)

    def check(self) -> None:
        """Raise what another thread raised, if any did."""
        if self._stopped is not None:
            raise self._stopped

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Stop the other threads at their next step if the block raises."""
        try:
            yield
        except BaseException as error:
            self._stopped = self._stopped or error
            raise


@dataclass(frozen=True, eq=False)
class Setup:
    """Data, settings and workers for training."""

    train: Supply
    validation: Supply
    settings: TrainSettings
    workers: Workers
    report: SharedProgress


def train_together(states: Mapping[Learner, State], setup: Setup) -> None:
    """Train until all branches have stopped, and save their states after each epoch.

    Workers start with the first learners, so list those with the longest steps first.
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
    read = setup.workers.stream(lambda rows: setup.train.read(rows, epoch), slices(order, size))
    for step, (taps, targets) in enumerate(read, first):
        setup.workers.each(partial(_learn, taps=taps, targets=targets, step=step), learners)
        done += len(targets)
        setup.report(learners, what, done)


def _judge(learners: Sequence[Learner], setup: Setup, epoch: int) -> None:
    order = np.arange(len(setup.validation))
    read = setup.workers.stream(
        lambda rows: setup.validation.read(rows, epoch), slices(order, JUDGE_BATCH_SIZE)
    )
    for taps, targets in read:
        setup.report.check()
        setup.workers.each(partial(_judge_one, taps=taps, targets=targets), learners)


def _learn(learner: Learner, taps: Taps, targets: Tensor, step: int) -> None:
    learner.learn(taps[learner.cut], targets, step)


def _judge_one(learner: Learner, taps: Taps, targets: Tensor) -> None:
    learner.judge(taps[learner.cut], targets)


def slices(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """The order in pieces of one size; the last may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def epoch_order(count: int, data_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the samples in one epoch, the same for every branch and seed."""
    return np.random.default_rng(random_stream("order", data_seed, epoch)).permutation(count)
