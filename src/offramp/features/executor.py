"""Executor: runs pieces of work and units of work in parallel, each on one core.

Torch's own threads wait for each other within every operator, which is slow for small operators and
very slow on a busy machine. Here complete pieces of work run in parallel instead. Each piece is
computed on one core, so results do not depend on the number of workers.

A *unit* is work that could be done elsewhere: a frozen dataclass of plain values (paths, names,
numbers, specs) with `run(resources) -> result`. Every executor follows these rules:

- A unit can be pickled. `run` depends only on the unit and its resources (a backbone, a data set)
  and keeps no state, so it can be repeated, or run on another machine.
- Results come in the order of the units, and each unit is run on one core. `run` starts at most
  `ahead` of them before the caller has taken their results, for results that are large; `all`
  keeps every worker busy, for results that are small.
- An exception of a unit is raised in its place among the results. Earlier units have returned
  theirs; later units are cancelled when the executor closes. A unit whose failure must not stop the
  others returns it as a value.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

from offramp.compute import torch_switches
from offramp.compute.switches import check_threads

Item = TypeVar("Item")
Result = TypeVar("Result")
Resources = TypeVar("Resources")
Needed_contra = TypeVar("Needed_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class WorkUnit(Protocol[Needed_contra, Result_co]):
    """Work that can be sent to another machine, repeated, and fail alone."""

    def run(self, resources: Needed_contra, /) -> Result_co:
        """Do the work with the resources of the machine."""


class Executor:
    """Runs work on threads, `count` pieces at once."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool, self.count = pool, count

    @property
    def ahead(self) -> int:
        """Largest number of pieces or units that are started before their results are taken."""
        return 2 * self.count + 1

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of all items, in order."""
        return list(self._pool.map(work, items))

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order as the caller takes them, at most `ahead` items before that."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) >= self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def run(
        self, units: Iterable[WorkUnit[Resources, Result]], resources: Resources
    ) -> Iterator[Result]:
        """Results of the units in order as the caller takes them.

        Raises:
            Exception: Raised by the unit whose result is next.
        """
        return self.stream(lambda unit: unit.run(resources), units)

    def all(
        self, units: Iterable[WorkUnit[Resources, Result]], resources: Resources
    ) -> list[Result]:
        """Results of all units, in order, without waiting for earlier ones to start later ones.

        Raises:
            Exception: Raised by the first unit that failed.
        """
        return self.each(lambda unit: unit.run(resources), units)


@contextmanager
def start_executor(threads: int | None, device: torch.device) -> Iterator[Executor]:
    """Start as many workers as `threads`, or as torch has threads; one for an accelerator.

    Torch's switches are set for repeatable results until the workers have stopped. After an
    exception, work that has not started is cancelled.

    Raises:
        PlanError: `threads` is not a whole number from 1 to 1,024.
    """
    if threads is not None:
        check_threads(threads)
    count = torch.get_num_threads() if threads is None else threads
    count = count if device.type == "cpu" else 1
    with torch_switches(threads=1, deterministic=True), ThreadPoolExecutor(count) as pool:
        try:
            yield Executor(pool, count)
        finally:
            pool.shutdown(cancel_futures=True)
