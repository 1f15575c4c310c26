"""95 % intervals for a share, for a mean over few independent units, and over samples and seeds."""

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
"""With fewer units than this, the bootstrap is too narrow and is widened to the closed form."""
FEW_VARYING = 10
"""The same if fewer units than this differ from the most common value."""
_CHUNK = 2_000_000  # numbers drawn at a time, to limit memory
_NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

Floats = NDArray[np.float64]
Units = NDArray[np.int64] | None
"""Index of the independent unit that each sample belongs to, (N,); None if all are independent."""
Bounds = tuple[float, float] | None
"""The smallest and largest possible value of one sample; None if it is unbounded."""


@dataclass(frozen=True)
class Interval(Record):
    """A 95 % interval, in the unit of the estimated quantity."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def text(self, measure: Measure) -> str:
        """The interval of a value, as printed in tables."""
        return f"{measure.text(self.low)} to {measure.text(self.high)}"

    def difference_text(self, measure: Measure) -> str:
        """The interval of a difference, as printed in tables."""
        return f"{measure.difference_text(self.low)} to {measure.difference_text(self.high)}"

    def as_json(self) -> Any:
        """Both ends; None for an infinite one, which results from a single unit without bounds."""
        return plain([self.low, self.high])


def wilson(share: float, samples: int) -> Interval:
    """Wilson's score interval for a share of `samples` independent samples (Wilson 1927)."""
    z = _NORMAL
    centre = (share + z**2 / (2 * samples)) / (1 + z**2 / samples)
    reach = z / (1 + z**2 / samples)
    reach *= (share * (1 - share) / samples + z**2 / (4 * samples**2)) ** 0.5
    return Interval(min(share, centre - reach), max(share, centre + reach))


def mean_interval(values: Floats, units: Units, bounds: Bounds) -> Interval:
    """Closed-form 95 % interval for the mean of values (N,) over independent units.

    If the values are bounded, two pseudo-units of average size are added, one at each bound, so
    that the interval has positive width even if all units agree. The mean is a ratio of sums over
    units; its variance comes from the residuals of the units' sums (Cochran 1977, section 6.4). For
    independent losses of -1, 0 and 1, this is the interval of Bonett and Price (2012). Otherwise
    the quantile is Student's t with the effective number of units (Kish 1965) minus one degrees of
    freedom, because few units estimate their own spread poorly. With fewer than two effective
    units, the interval is the bounds themselves.
    """
    (sums,), sizes = _over_units(values[np.newaxis], units)
    low, high = bounds or (-math.inf, math.inf)
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())
    independent = units is None and bounds is not None
    if not independent and effective < 2:  # about one unit, so the spread is unknown
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
    """Bootstrap means of columns (seeds, N) over samples and seeds: (draws, C).

    All columns share the draws of samples, so differences between columns are paired. Seeds are
    drawn within each draw. Samples of a unit depend on each other and are drawn together.
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
    """The middle 95 % of bootstrap means (draws,) of values (seeds, N).

    If there are few units, or few that differ from the rest, the bootstrap misses rare values: if
    no unit has a loss, no draw has one. The interval is then widened to the closed form.
    """
    found, mean = percentile_interval(draws), values.mean(axis=0)
    if not _too_few(mean, units):
        return found
    other = mean_interval(mean, units, bounds)
    return Interval(min(found.low, other.low), max(found.high, other.high))


def percentile_interval(draws: Floats) -> Interval:
    """The middle 95 % of bootstrap values (draws,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def units_text(samples: int, units: Units) -> str:
    """The number of samples, and of independent units if there are fewer."""
    if units is None:
        return f"{samples} samples"
    return f"{samples} samples in {units.max() + 1} independent units"


def _too_few(values: Floats, units: Units) -> bool:
    (sums,), sizes = _over_units(values[np.newaxis], units)
    _, alike = np.unique(sums / sizes, return_counts=True)
    return bool(len(sizes) < FEW_UNITS or len(sizes) - alike.max() < FEW_VARYING)


def _over_units(rows: Floats, units: Units) -> tuple[Floats, Floats]:
    """Sums of rows (R, N) over the samples of each unit, (R, G), and its sample count, (G,)."""
    if units is None:
        return rows, np.ones(rows.shape[1])
    _, place, counts = np.unique(units, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(place, row) for row in rows]), counts.astype(np.float64)


def _resampled(sums: Floats, sizes: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Means (draws, R) over G units drawn with replacement."""
    units = len(sizes)
    picks = random.integers(0, units, (draws, units)) + units * np.arange(draws)[:, np.newaxis]
    times = np.bincount(picks.ravel(), minlength=draws * units).astype(np.float64)
    counts = times.reshape(draws, units)  # how often each unit was drawn
    means: Floats = (counts @ sums.T) / (counts @ sizes)[:, np.newaxis]
    return means


def _over_seeds(per_seed: Floats, chance: Floats) -> Floats:
    """Means (draws,) of (draws, seeds) over seeds drawn with replacement."""
    seeds = per_seed.shape[1]
    picks = np.minimum((chance[:, :seeds] * seeds).astype(np.int64), seeds - 1)
    means: Floats = np.take_along_axis(per_seed, picks, axis=1).mean(axis=1)
    return means
