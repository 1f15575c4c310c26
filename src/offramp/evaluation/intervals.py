"""95 % intervals: Wilson's for one share, the bootstrap over samples and seeds for the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_CHUNK = 2_000_000  # numbers drawn at a time, so that memory stays small


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, in the unit of what it is about."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(share: float, samples: int) -> Interval:
    """Wilson's score interval for a share of `samples` independent samples (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples)
    reach *= (share * (1 - share) / samples + z**2 / (4 * samples**2)) ** 0.5
    return Interval(min(share, centre - reach), max(share, centre + reach))


@dataclass(frozen=True)
class Bootstrap:
    """Resampling of samples and, within each draw, of seeds.

    One draw of samples serves every column, so differences between columns are paired. Samples
    that share an id are drawn together, for they are not independent.

    Attributes:
        draws: How many times all is resampled.
        seed: Of the random numbers; the same seed gives the same intervals.
    """

    draws: int = 2000
    seed: int = 0

    def means(
        self, columns: Sequence[NDArray[np.float64]], ids: NDArray[np.str_] | None = None
    ) -> NDArray[np.float64]:
        """Resampled means of columns (seeds, N), each over its samples and seeds: (draws, C)."""
        samples, seeds = (np.random.default_rng((self.seed, stream)) for stream in (0, 1))
        per_seed = self._over_samples(np.concatenate(columns), ids, samples)
        most = max(len(column) for column in columns)
        chance = seeds.random((self.draws, most))
        starts = np.cumsum([0, *(len(column) for column in columns)])
        return np.stack(
            [_over_seeds(per_seed[:, first:last], chance) for first, last in pairwise(starts)],
            axis=1,
        )

    def _over_samples(
        self, rows: NDArray[np.float64], ids: NDArray[np.str_] | None, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Means of rows (R, N) over samples drawn with replacement: (draws, R)."""
        sums, sizes = _grouped(rows, ids)
        groups = sums.shape[1]
        step = max(1, _CHUNK // groups)
        means = [
            (counts @ sums.T) / (counts @ sizes)[:, np.newaxis]
            for first in range(0, self.draws, step)
            for counts in [_counts(rng, min(step, self.draws - first), groups)]
        ]
        return np.concatenate(means)


def percentile_interval(draws: NDArray[np.float64]) -> Interval:
    """The middle 95 % of resampled values (draws,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _grouped(
    rows: NDArray[np.float64], ids: NDArray[np.str_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of rows (R, N) over samples of the same id, (R, G), and how many each id has, (G,)."""
    if ids is None:
        return rows, np.ones(rows.shape[1])
    _, group = np.unique(ids, return_inverse=True)
    sizes = np.bincount(group).astype(np.float64)
    return np.stack([np.bincount(group, row, len(sizes)) for row in rows]), sizes


def _counts(rng: np.random.Generator, draws: int, groups: int) -> NDArray[np.float64]:
    """How often each group is drawn when as many as there are are drawn: (draws, groups)."""
    picks = rng.integers(0, groups, (draws, groups)) + groups * np.arange(draws)[:, np.newaxis]
    flat = np.bincount(picks.ravel(), minlength=draws * groups).astype(np.float64)
    return flat.reshape(draws, groups)


def _over_seeds(per_seed: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (draws,) of (draws, seeds) over seeds drawn with replacement."""
    seeds = per_seed.shape[1]
    picks = np.minimum((chance[:, :seeds] * seeds).astype(np.int64), seeds - 1)
    means: NDArray[np.float64] = np.take_along_axis(per_seed, picks, axis=1).mean(axis=1)
    return means
