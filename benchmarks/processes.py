"""Processes: each measurement in one of its own, so that no memory layout stays for the next."""

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


def in_new_process(work: Callable[..., Result], *given: object) -> Result:
    """What `work` returns in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *given).result()


def side_by_side(work: Callable[[Given], Result], items: Iterable[Given]) -> list[Result]:
    """What `work` returns for each item, each in a process of its own, all at once."""
    given = list(items)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(given), mp_context=spawn) as pool:
        return list(pool.map(work, given))
