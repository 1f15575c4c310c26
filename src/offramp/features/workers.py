"""Workers: threads that each run torch on one core.

Torch's own threads wait for each other within every operator, which is slow for small ones and
very slow on a busy machine. Here whole pieces of work run side by side instead, and since each
piece is computed on one core, no bit of a result depends on how many workers there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from offramp.compute import torch_switches
from offramp.errors import PlanError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Runs pieces of work side by side, `count` at once."""

    def __init__(self, pool: ThreadPoolExecutor, count: int) -> None:
        self._pool, self.count = pool, count

    @property
    def ahead(self) -> int:
        """Pieces that `stream` may hold at once."""
        return 2 * self.count + 1

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of all items, in order."""
        return list(self._pool.map(work, items))

    def stream(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in order as they are asked for, a few pieces ahead of that."""
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(self._pool.submit(work, item))
            if len(waiting) >= self.ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def start_workers(threads: int | None, device: torch.device) -> Iterator[Workers]:
    """Start as many workers as `threads`, or as torch has threads; one for an accelerator.

    Torch's switches are set for repeatable results until the workers have stopped.

    Raises:
        PlanError: `threads` is below 1.
    """
    count = torch.get_num_threads() if threads is None else threads
    if count < 1:
        raise PlanError(f"threads={count}: training needs at least one thread.")
    count = count if device.type == "cpu" else 1
    with torch_switches(threads=1, deterministic=True), ThreadPoolExecutor(count) as pool:
        try:
            yield Workers(pool, count)
        finally:
            pool.shutdown(cancel_futures=True)
