"""Dependence: whether answers close to each other are alike more often than chance makes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LAGS = 10
"""The largest distance between answers that is looked at."""
_BLOCK = 100  # answers whose order is compared with all orders
_LIMIT = 5.0  # standard deviations; one-sided 3 in 10 million for one distance at one look
_EXTENT = 3.0  # standard deviations that a distance needs once another one is beyond the limit
_LEAST_VARIANCE = 100.0  # below, the sum over blocks is not close to normal yet


class LagTest:
    """Counts pairs of equal answers at each distance, in blocks of 100 answers.

    If answers are independent, all orders of a block are equally likely given how often each
    category is in it, whatever the shares are and however they drift from block to block. So the
    count of equal pairs at a distance, less its mean over all orders, is 0 on average, with a
    variance that is known too (moments of a random permutation). Sums over blocks are compared
    with 5 standard deviations whenever the number of blocks is a power of two.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((2, LAGS))  # excess over the mean, and its variance
        self.blocks = 0
        self.waiting = np.empty(0, np.int64)  # answers of a block that is not full yet
        self.reach: int | None = None  # the largest distance at which dependence was seen

    def update(self, categories: NDArray[np.int64]) -> int | None:
        """Look at more answers, (N,); the reach of a dependence when it is first seen."""
        given = np.concatenate([self.waiting, categories])
        full = len(given) // _BLOCK
        self.waiting = given[full * _BLOCK :]
        if not full:
            return None
        found = np.stack([_excess(block) for block in given[: full * _BLOCK].reshape(full, _BLOCK)])
        # One running sum, so that the division into calls does not show in its last bits.
        upto = np.cumsum(np.concatenate([self.sums[np.newaxis], found]), axis=0)[1:]
        counts = self.blocks + 1 + np.arange(full)
        self.sums, self.blocks = upto[-1], self.blocks + full
        if self.reach is not None:
            return None
        for sums in upto[(counts & (counts - 1)) == 0]:
            if self.reach is None:
                self.reach = _reach(sums)
        return self.reach

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {**vars(self), "sums": self.sums.tolist(), "waiting": self.waiting.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of another one."""
        self.sums = np.array(state["sums"], np.float64)
        self.blocks = int(state["blocks"])
        self.waiting = np.array(state["waiting"], np.int64)
        self.reach = None if state["reach"] is None else int(state["reach"])


def _reach(sums: Floats) -> int | None:
    """The largest distance at which answers depend, if any distance is beyond the limit."""
    excess, variance = sums
    deviations = excess / np.sqrt(np.maximum(variance, _LEAST_VARIANCE))
    if deviations.max() <= _LIMIT or variance.max() < _LEAST_VARIANCE:
        return None
    return int(np.flatnonzero(deviations > _EXTENT)[-1]) + 1


def _excess(block: NDArray[np.int64]) -> Floats:
    """Equal pairs at each distance less their mean over all orders, and its variance: (2, LAGS).

    Two pairs share a place, or they do not; the chance that both are equal follows from how many
    triples, and how many two pairs of places, hold equal categories.
    """
    size, lags = len(block), np.arange(1, LAGS + 1)
    equal = np.array([np.count_nonzero(block[lag:] == block[:-lag]) for lag in lags])
    counts = np.bincount(block).astype(np.float64)
    twos = counts * (counts - 1)
    pair = twos.sum() / (size * (size - 1))
    triple = (twos * (counts - 2)).sum() / (size * (size - 1) * (size - 2))
    same = (twos * (counts - 2) * (counts - 3)).sum()
    two_pairs = same + twos.sum() ** 2 - (twos**2).sum()
    apart = two_pairs / (size * (size - 1) * (size - 2) * (size - 3))
    pairs, sharing = size - lags, 2 * (size - 2 * lags)
    second = pairs * pair + sharing * triple + (pairs * (pairs - 1) - sharing) * apart
    return np.stack([equal - pairs * pair, second - (pairs * pair) ** 2])
