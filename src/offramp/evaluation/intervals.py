"""95 % intervals: of one share, of a mean over units that may be few, over samples and seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from offramp.record import Record, plain
from offramp.task import Measure

CONFIDENCE = 0.95
FEW_UNITS = 100
"""Below this number of units a bootstrap is too narrow, and the closed form widens it."""
FEW_VARYING = 10
"""The same where fewer units than this differ from what most units show."""
_CHUNK = 2_000_000  # numbers drawn at a time, so that memory stays small
_NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Floats = NDArray[np.float64]
Units = NDArray[np.int64] | None
"""Which independent unit each sample belongs to, (N,); None where each is one by itself."""
Bounds = tuple[float, float] | None
"""The least and the largest value that one sample can have; None where there is no limit."""


@dataclass(frozen=True)
class Interval(Record):
    """A 95 % interval, in the unit of what it is about."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def text(self, measure: Measure) -> str:
        """Around a value, as tables print it."""
        return f"{measure.text(self.low)} to {measure.text(self.high)}"

    def difference_text(self, measure: Measure) -> str:
        """Around a difference, as tables print it."""
        return f"{measure.difference_text(self.low)} to {measure.difference_text(self.high)}"

    def as_json(self) -> Any:
        """Both ends; None for one that is infinite, as a single unit without bounds leaves it."""
        return plain([self.low, self.high])


def wilson(share: float, samples: int) -> Interval:
    """Wilson's score interval for a share of `samples` independent samples (Wilson 1927)."""
    z = _NORMAL
    centre = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples)
    reach *= (share * (1 - share) / samples + z**2 / (4 * samples**2)) ** 0.5
    return Interval(min(share, centre - reach), max(share, centre + reach))


def mean_interval(values: Floats, units: Units, bounds: Bounds) -> Interval:
    """95 % for the mean of values (N,) over independent units, in closed form.

    Two made-up units of average size join, one at each bound, so that units which all agree
    still leave room for one that does not. The mean of all is a ratio of sums over units; its
    variance follows from how far each unit's sum is from its share (Cochran 1977, section 6.4).
    For independent losses of -1, 0 and 1 this is the interval of Bonett and Price (2012).
    Otherwise the reach is Student's t of the effective number of units (Kish 1965) less one, as
    few units estimate their own spread badly. Without bounds nothing is added. Less than two
    effective units show nothing but the bounds.
    """
    (sums,), sizes = _over_units(values[np.newaxis], units)
    low, high = bounds or (-math.inf, math.inf)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    independent = units is None and bounds is not None
    if not independent and effective < 2:  # about one unit, whose spread is unknown
        return Interval(low, high)
    correction = len(sizes) / (len(sizes) - 1) if bounds is None else 1.0
    if bounds is not None:
        made_up = np.full(2, sizes.mean())
        sums, sizes = np.append(sums, made_up * bounds), np.append(sizes, made_up)
    centre = float(sums.sum() / sizes.sum())
    variance = correction * float(((sums - centre * sizes) ** 2).sum() / sizes.sum() ** 2)
    quantile = _NORMAL if independent else float(stdtrit(effective - 1, (1 + CONFIDENCE) / 2))
    mean, reach = float(values.mean()), quantile * math.sqrt(variance)
    return Interval(min(mean, max(low, centre - reach)), max(mean, min(high, centre + reach)))


def resampled_means(
    columns: Sequence[Floats], units: Units = None, *, draws: int, seed: int = 0
) -> Floats:
    """Resampled means of columns (seeds, N), each over its samples and seeds: (draws, C).

    One draw of samples serves every column, so differences between columns are paired; within it
    seeds are drawn as well. Samples of one unit are drawn together, for they are not independent.
    """
    of_samples, of_seeds = (np.random.default_rng((seed, stream)) for stream in (0, 1))
    sums, sizes = _over_units(np.concatenate(columns), units)
    step = max(1, _CHUNK // len(sizes))
    chunks = [min(step, draws - first) for first in range(0, draws, step)]
    per_seed = np.concatenate([_resampled(sums, sizes, chunk, of_samples) for chunk in chunks])
    chance = of_seeds.random((draws, max(len(column) for column in columns)))
    starts = np.cumsum([0, *(len(column) for column in columns)])
    means = [_over_seeds(per_seed[:, first:last], chance) for first, last in pairwise(starts)]
    return np.stack(means, axis=1)


def resampled_interval(draws: Floats, values: Floats, units: Units, bounds: Bounds) -> Interval:
    """The middle 95 % of resampled means (draws,) of values (seeds, N).

    Where units are few, or few of them differ from the rest, draws repeat what chance left out:
    if no unit lost anything, none of the draws does. There the closed form widens the interval.
    """
    found, mean = percentile_interval(draws), values.mean(axis=0)
    if not _too_few(mean, units):
        return found
    other = mean_interval(mean, units, bounds)
    return Interval(min(found.low, other.low), max(found.high, other.high))


def percentile_interval(draws: Floats) -> Interval:
    """The middle 95 % of resampled values (draws,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def units_text(samples: int, units: Units) -> str:
    """How many samples there are, and in how many units where these are fewer."""
    if units is None:
        return f"{samples} samples"
    return f"{samples} samples in {units.max() + 1} independent units"


def _too_few(values: Floats, units: Units) -> bool:
    (sums,), sizes = _over_units(values[np.newaxis], units)
    _, alike = np.unique(sums / sizes, return_counts=True)
    return bool(len(sizes) < FEW_UNITS or len(sizes) - alike.max() < FEW_VARYING)


def _over_units(rows: Floats, units: Units) -> tuple[Floats, Floats]:
    """Sums of rows (R, N) over the samples of each unit, (R, G), and how many it has, (G,)."""
    if units is None:
        return rows, np.ones(rows.shape[1])
    _, place, counts = np.unique(units, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(place, row) for row in rows]), counts.astype(np.float64)


def _resampled(sums: Floats, sizes: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Means (draws, R) over as many units drawn with replacement as there are (G,)."""
    units = len(sizes)
    picks = random.integers(0, units, (draws, units)) + units * np.arange(draws)[:, np.newaxis]
    times = np.bincount(picks.ravel(), minlength=draws * units).astype(np.float64)
    counts = times.reshape(draws, units)  # how often each unit is in each draw
    means: Floats = (counts @ sums.T) / (counts @ sizes)[:, np.newaxis]
    return means


def _over_seeds(per_seed: Floats, chance: Floats) -> Floats:
    """Means (draws,) of (draws, seeds) over seeds drawn with replacement."""
    seeds = per_seed.shape[1]
    picks = np.minimum((chance[:, :seeds] * seeds).astype(np.int64), seeds - 1)
    means: Floats = np.take_along_axis(per_seed, picks, axis=1).mean(axis=1)
    return means
