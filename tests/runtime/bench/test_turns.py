"""Calls that are timed in turns."""

import itertools
from functools import partial

import numpy as np

from offramp.runtime.bench.turns import times_in_turns


def test_each_round_times_every_call_once_and_starts_with_another_one() -> None:
    order: list[str] = []
    now = itertools.count()
    found = times_in_turns(
        {name: partial(order.append, name) for name in "abc"},
        repeats=4,
        warmup=1,
        clock=lambda: next(now) / 1000,
    )
    rounds = ["".join(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert rounds == ["cab", "abc", "bca", "cab", "abc"]
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_allclose(list(found.values()), np.ones((3, 4)))
