"""The best policy of the family: thresholds on any of the exits, found on the whole pool."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from offramp.policy import leaving
from promises.pool import Floats, Judged, Pool, Thresholds

LEVELS = 96
ROUNDS = 6
MANY = 7  # early exits; of more, a smaller part of all moves is tried
Exits = tuple[int, ...]
Limit = Callable[[Floats, Floats], NDArray[np.bool_]]
"""From the drop and the share of unequal rows of many policies to which of them count."""


def within(max_drop: float) -> Limit:
    """Policies whose drop is within the limit."""
    return lambda drop, unequal: drop <= max_drop


def certifiable(max_drop: float, delta: float, samples: int) -> Limit:
    """Policies so far within the limit that a test on so many samples should pass them."""
    width = (norm.ppf(1 - delta) + 1.5) / np.sqrt(samples)
    return lambda drop, unequal: drop + width * np.sqrt(np.maximum(unequal, 0)) <= max_drop


@dataclass(frozen=True)
class Found:
    """The best policy that a search found, and what it gives on the pool."""

    thresholds: Thresholds
    judged: Judged


class Levels:
    """Thresholds to try for each early exit, and how many of them each row reaches."""

    def __init__(self, pool: Pool, values: list[Floats]) -> None:
        self.values = values
        self.reached = [
            np.searchsorted(levels, scores, side="right")
            for levels, scores in zip(values, pool.scores, strict=True)
        ]

    @classmethod
    def coarse(cls, pool: Pool) -> "Levels":
        """Quantiles of each exit's scores."""
        shares = np.linspace(0, 1, LEVELS)
        return cls(pool, [np.unique(np.quantile(scores, shares)) for scores in pool.scores])

    def finer(self, pool: Pool, around: Thresholds) -> "Levels":
        """As many levels between the neighbours of each threshold, itself among them."""
        values = []
        for scores, levels, threshold in zip(pool.scores, self.values, around, strict=True):
            if threshold is None:
                values.append(levels)
                continue
            place = int(np.searchsorted(levels, threshold))
            low, high = levels[max(place - 1, 0)], levels[min(place + 1, len(levels) - 1)]
            near = scores[(scores >= low) & (scores <= high)]
            fine = np.quantile(near, np.linspace(0, 1, LEVELS))
            values.append(np.unique([*fine, threshold]))
        return Levels(pool, values)


def best(pool: Pool, limit: Limit) -> Found | None:
    """Policy that saves most within the limit, or None where none saves anything.

    Climbs over pairs of exits, all pairs of their levels at once and the others kept: with two
    early exits that is every policy on the levels. Climbs begin from no exit and from each exit
    alone; the last one has finer levels around what was found.
    """
    nothing: Thresholds = (None,) * pool.num_early
    coarse = Levels.coarse(pool)
    first = range(0, pool.num_early, 1 if pool.num_early <= MANY else 4)
    alone = [_moved(pool, nothing, (exit,), coarse, limit) for exit in first]
    tops = [_climbed(pool, start, coarse, limit) for start in dict.fromkeys((nothing, *alone))]
    top = max(tops, key=lambda each: pool.judge(each).saved)
    top = _climbed(pool, top, coarse.finer(pool, top), limit)
    judged = pool.judge(top)
    return Found(top, judged) if judged.saved > 0 else None


def _climbed(pool: Pool, here: Thresholds, levels: Levels, limit: Limit) -> Thresholds:
    apart = pool.num_early if pool.num_early <= MANY else 1  # of many exits only neighbours
    pairs = combinations(range(pool.num_early), 2)
    blocks: list[Exits] = [pair for pair in pairs if pair[1] - pair[0] <= apart] or [(0,)]
    for _ in range(ROUNDS):
        before = here
        for block in blocks:
            here = _moved(pool, here, block, levels, limit)
        if here == before:
            break
    return here


def _moved(pool: Pool, here: Thresholds, block: Exits, levels: Levels, limit: Limit) -> Thresholds:
    """The best change of a block's thresholds, exits disabled included; `here` if none is."""
    found, high = here, pool.judge(here).saved
    for size in range(len(block) + 1):
        for active in combinations(block, size):
            rest = [None if exit in block else value for exit, value in enumerate(here)]
            drop, unequal, saved = grid(pool, tuple(rest), active, levels)
            saved = np.where(limit(drop, unequal), saved, -np.inf)
            place = np.unravel_index(int(saved.argmax()), saved.shape)
            if saved[place] > high + 1e-9:
                high = float(saved[place])
                for exit, level in zip(active, place, strict=True):
                    rest[exit] = float(levels.values[exit][level])
                found = tuple(rest)
    return found


def grid(pool: Pool, rest: Thresholds, active: Exits, levels: Levels) -> Floats:
    """Drop, unequal share and saving, (3, L, ...), for all levels of at most two active exits.

    The other exits keep the thresholds of `rest`, where the active ones have None.
    """
    saving = pool.saving(tuple(0.0 if e in active else value for e, value in enumerate(rest)))
    leaves = leaving(pool.scores, rest)
    kept = _values(pool, leaves, saving, np.arange(len(pool)))
    shape = tuple(len(levels.values[exit]) for exit in active)
    totals = np.zeros((3, *shape)) + kept.sum(axis=1).reshape(3, *(1 for _ in shape))
    for order, exit in enumerate(active):
        rows = np.flatnonzero(leaves > exit)
        gains = _values(pool, np.full(len(rows), exit), saving, rows) - kept[:, rows]
        firing = _summed(gains, [levels.reached[e][rows] for e in active[: order + 1]], shape)
        totals += firing.reshape(3, *firing.shape[1:], *(1 for _ in shape[order + 1 :]))
    means: Floats = totals / len(pool)
    return means


def _values(
    pool: Pool, leaves: NDArray[np.int64], saving: Floats, rows: NDArray[np.int64]
) -> Floats:
    """Loss, whether it is any, and saving of rows that leave there, (3, N)."""
    losses = pool.losses[leaves, rows]
    return np.stack([losses, losses != 0, saving[leaves]]).astype(np.float64)


def _summed(gains: Floats, reached: list[NDArray[np.int64]], shape: tuple[int, ...]) -> Floats:
    """Sums of gains (3, N) over rows that pass the earlier active exit and fire at this one."""
    bins = tuple(size + 1 for size in shape[: len(reached)])
    flat = np.ravel_multi_index(reached, bins)
    counts = [np.bincount(flat, gain, minlength=int(np.prod(bins))) for gain in gains]
    sums = np.array(counts, np.float64).reshape(3, *bins)
    if len(reached) > 1:  # rows that reach no level up to this one pass the earlier exit
        sums = np.cumsum(sums, axis=1)[:, :-1]
    firing: Floats = np.cumsum(sums[..., ::-1], axis=-1)[..., ::-1][..., 1:]
    return firing
