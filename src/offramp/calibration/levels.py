"""Levels: a few thresholds per early exit, from never to nearly always, and when each row fires."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_LEVELS = 32


@dataclass(frozen=True, eq=False)
class Levels:
    """Thresholds of the early exits, each falling; level 0 is disabled, level l the l-th of them.

    Attributes:
        thresholds: (E - 1) arrays; empty for an exit that can never fire.
    """

    thresholds: tuple[NDArray[np.float64], ...]

    def of(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """First level at which each row fires, (E - 1, N); one past the last where none does."""
        return np.array(
            [
                np.searchsorted(-falling, -row, side="left") + 1
                for falling, row in zip(self.thresholds, scores, strict=True)
            ],
            np.int64,
        ).reshape(scores.shape)

    def at(self, state: NDArray[np.int64]) -> tuple[float | None, ...]:
        """Thresholds of a state (E - 1,) of levels."""
        return tuple(
            float(falling[level - 1]) if level else None
            for falling, level in zip(self.thresholds, state, strict=True)
        )


def levels_of(scores: NDArray[np.float64], num_levels: int = NUM_LEVELS) -> Levels:
    """Levels at equal steps of rank of scores (E - 1, N); all values where there are few.

    A threshold lies half way between two scores, so that rounding moves no row across it.
    """
    return Levels(tuple(_falling(row[np.isfinite(row)], num_levels) for row in scores))


def _falling(scores: NDArray[np.float64], num_levels: int) -> NDArray[np.float64]:
    values, counts = np.unique(-scores, return_counts=True)
    values = -values  # distinct, falling
    below = np.append(values[1:], values[-1:])
    between = below + (values - below) / 2
    between = np.where(between > below, between, values)
    if len(values) <= num_levels:
        return between
    ranks = np.ceil(np.arange(1, num_levels + 1) * len(scores) / num_levels)
    return between[np.unique(np.searchsorted(np.cumsum(counts), ranks, side="left"))]
