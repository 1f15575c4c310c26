"""Dependence: test whether answers close to each other agree more often than by chance."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LAGS = 10
"""Largest distance (lag) between answers that is tested."""
_BLOCK = 100  # answers per block
_LIMIT = 5.0  # standard deviations: one-sided level of 3 in 10 million per lag and look
_EXTENT = 3.0  # standard deviations for further lags once one exceeds the limit
_LEAST_VARIANCE = 100.0  # below this, the normal approximation of the sum is poor


class LagTest:
    """Permutation test that counts pairs of equal answers at each lag, in blocks of 100 answers.

    If answers are independent, all permutations of a block are equally likely given the counts of
    its categories, whatever the shares are and however they drift between blocks. The number of
    equal pairs at a lag, minus its mean over all permutations, therefore has mean 0 and a known
    variance. Sums over blocks are compared with 5 standard deviations whenever the number of blocks
    is a power of two.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((2, LAGS))  # sum of (pairs - mean), and its variance
        self.blocks = 0
        self.waiting = np.empty(0, np.int64)  # answers of the incomplete block
        self.reach: int | None = None  # largest lag with dependence, once detected

    def update(self, categories: NDArray[np.int64]) -> int | None:
        """Process answers, (N,); return the largest dependent lag when first detected."""
        given = np.concatenate([self.waiting, categories])
        full = len(given) // _BLOCK
        self.waiting = given[full * _BLOCK :]
        if not full:
            return None
        found = np.stack([_excess(block) for block in given[: full * _BLOCK].reshape(full, _BLOCK)])
        # A sequential sum, so that the result does not depend on how answers are divided into
        # calls.
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
        """State for `restore`, as JSON values."""
        return {**vars(self), "sums": self.sums.tolist(), "waiting": self.waiting.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.sums = np.array(state["sums"], np.float64)
        self.blocks = int(state["blocks"])
        self.waiting = np.array(state["waiting"], np.int64)
        self.reach = None if state["reach"] is None else int(state["reach"])


def _reach(sums: Floats) -> int | None:
    """The largest dependent lag, if any lag exceeds the limit."""
    excess, variance = sums
    deviations = excess / np.sqrt(np.maximum(variance, _LEAST_VARIANCE))
    if deviations.max() <= _LIMIT or variance.max() < _LEAST_VARIANCE:
        return None
    return int(np.flatnonzero(deviations > _EXTENT)[-1]) + 1


def _excess(block: NDArray[np.int64]) -> Floats:
    """Equal pairs at each lag minus their mean over permutations, and the variance: (2, LAGS).

    Two pairs either share a position or not. The probability that both are equal follows from the
    number of triples of positions with equal categories, or of pairs of pairs.
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
