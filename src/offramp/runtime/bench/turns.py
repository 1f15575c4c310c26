"""Turns: several calls timed one after the other, round by round, so that drift hits all alike."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Calls = Mapping[str, Callable[[], object]]


def times_in_turns(
    calls: Calls,
    *,
    repeats: int,
    clock: Callable[[], float],
    warmup: int = 1,
    after_round: Callable[[int], object] = lambda done: None,
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each call in each round, (repeats,); every round starts with another call.

    Args:
        calls: By name.
        repeats: Rounds that count.
        clock: In seconds.
        warmup: Rounds before them.
        after_round: Called with the number of rounds that are done.
    """
    names = list(calls)
    took = {name: np.empty(repeats) for name in names}
    for turn in range(-warmup, repeats):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            before = clock()
            calls[name]()
            if turn >= 0:
                took[name][turn] = 1000 * (clock() - before)
        after_round(turn + warmup + 1)
    return took
