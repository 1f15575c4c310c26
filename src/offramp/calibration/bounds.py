"""p-values, exact for every sample size, of the hypothesis that a mean loss is above a limit.

Each is small only where the sample speaks against a mean above the limit: under the hypothesis,
P(p <= a) <= a for every a. Each falls, or stays, where the limit rises, so whatever is certified
for a strict limit is certified for a looser one.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

_SPENT = 1e-6  # share of the level that confines the nuisance rate
_REACH, _FEW = 6.0, 15.0  # standard deviations and counts on both sides that are summed
_STEP, _CLOSER = 0.15, 0.1  # between nuisance rates: shares of the sum's variance, of a rate

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def binomial_p(count: int, num: int, limit: float) -> float:
    """P(at most `count` of `num`) where each has chance `limit`: exact, for a share."""
    return float(_at_most(np.array(count), np.array(num), limit))


def difference_p(plus: int, minus: int, num: int, limit: float, level: float) -> float:
    """For losses in {-1, 0, 1}: hypothesis `mean loss >= limit`, to be tested at `level`.

    Exact and unconditional. Samples are ordered by `_upper(plus, minus)`, the upper end of the
    score interval for the mean, and the p-value is the largest chance, over the nuisance `down`
    (the chance of a loss of -1, so that 1 has chance `limit + down`), of a sample that comes no
    later than the one observed.

    Why the boundary `mean = limit` is enough, and why the p-value falls with the limit: `_upper`
    rises in `plus` and does not rise in `minus`, so samples up to a given one form a set that is
    left when a loss grows; raising P(1) for a fixed P(-1) only lowers its chance.

    Without any loss only samples with mostly gains come earlier, so the p-value is that of the
    exact binomial, (1 - limit)^num, wherever that is near a usual level.

    A share _SPENT of the level confines the nuisance to a confidence interval given how many losses
    are not 0, which keeps rates out that the sample contradicts (Berger and Boos 1994). Within, the
    chance is a smooth function of the nuisance that changes on the scale of the sum's variance:
    it is evaluated in steps of _STEP of that and once more, finely, around the largest value.
    """
    if num < 1:
        return 1.0
    spent = level * _SPENT
    low = max(limit, share_lower_bound(plus + minus, num, spent / 2))
    high = share_bound(plus + minus, num, spent / 2)
    if high <= limit:
        return spent
    down = (np.array([low, high]) - limit) / 2
    few = _likely(num, float(down[0]), float(min(down[1], (1 - limit) / 2)))
    most = _most_plus(plus, minus, few, max(NormalDist().inv_cdf(1 - level), 0.1))

    def chance(rates: Floats) -> Floats:
        return _chance_of_at_most(most, few, num, limit + rates, rates)

    rates = _steps(num, limit, float(down[0]), float(min(down[1], (1 - limit) / 2)))
    coarse = chance(rates)
    top = int(coarse.argmax())
    fine = np.linspace(rates[max(top - 1, 0)], rates[min(top + 1, len(rates) - 1)], 9)
    return min(1.0, spent + max(float(coarse.max()), float(chance(fine).max())))


def _upper(plus: int, minus: int, z: float) -> float:
    """Upper end of the score interval for the sum's mean: its variance is mean + 2 E[minus]."""
    return plus - minus + z * z / 2 + z * math.sqrt(plus + minus + z * z / 4)


def _most_plus(plus: int, minus: int, few: Ints, z: float) -> Ints:
    """For each number of -1, the most of 1 with an `_upper` not above the observed; -1: none.

    `_upper` is a quadratic in v = sqrt(plus + minus + z^2 / 4): v^2 + z v - 2 minus + z^2 / 4.
    """
    allowed = _upper(plus, minus, z) + 1e-9 + 2 * few - z * z / 4
    root = (np.sqrt(np.maximum(z * z + 4 * allowed, 0)) - z) / 2
    found = np.floor(root**2 - few - z * z / 4 + 1e-9)
    return np.where((allowed < 0) | (found < 0), -1, found).astype(np.int64)


def _likely(num: int, low: float, high: float) -> Ints:
    """Numbers of -1 that are not too unlikely for any rate from `low` to `high`."""
    first = num * low - _REACH * math.sqrt(num * low) - _FEW
    last = num * high + _REACH * math.sqrt(num * high) + _FEW
    return np.arange(max(0, math.floor(first)), min(num, math.ceil(last)) + 1)


def _steps(num: int, limit: float, low: float, high: float) -> Floats:
    """Rates of -1 from `low` to `high`.

    Closer where -1 or 0 are rare, down to half a count: there the chance follows single counts.
    """
    rates = [low]
    while rates[-1] < high:
        here = rates[-1]
        step = min(_STEP * (limit + 2 * here), _CLOSER * min(here, 1 - limit - 2 * here))
        rates.append(min(high, here + max(step, 0.5 / num)))
    return np.array(rates)


def _chance_of_at_most(most: Ints, few: Ints, num: int, up: Floats, down: Floats) -> Floats:
    """P(number of 1 <= most[number of -1]), (Q,), for `num` losses with chances up, down (Q,).

    Summed over `few`, the numbers of -1; the chance of all others (about 1e-9 at most) is added,
    so that the sum is never too small.
    """
    up, down = up[:, np.newaxis], down[:, np.newaxis]
    chance = np.exp(
        special.gammaln(num + 1)
        - special.gammaln(few + 1)
        - special.gammaln(num - few + 1)
        + special.xlogy(few, down)
        + special.xlog1py(num - few, -down)
    )
    rest = _at_most(most, num - few, np.minimum(1.0, up / (1 - down)))
    found: Floats = (chance * rest).sum(axis=1) + np.maximum(0.0, 1 - chance.sum(axis=1))
    return found


def betting_p(sums: Floats, sizes: Floats, limit: float, bet: float) -> float:
    """1 / wealth of one who bets on each cluster that its rows' mean loss is under `limit`.

    A cluster is a set of rows that may depend on each other; its row losses sum to `sums`. The
    population's mean loss per row is E[sum] / E[size], so it is at least `limit` exactly where
    E[sum - limit * size] >= 0. Wealth is the product of 1 - bet * (sum - limit * size) over the
    clusters, which are independent: under the hypothesis its mean is at most 1, so by Markov
    1 / wealth is a p-value (Waudby-Smith and Ramdas 2024), whatever happens within a cluster.
    `bet` is chosen without looking at these clusters, and such that no factor can be negative.
    """
    gains = np.log1p(bet * (limit * sizes - sums))
    return math.exp(-max(0.0, math.fsum(gains.tolist())))


def share_bound(count: int, num: int, level: float) -> float:
    """Upper Clopper-Pearson bound of a share: the truth is above it with chance <= `level`."""
    return 1.0 if count >= num else float(special.bdtri(count, num, level))


def share_lower_bound(count: int, num: int, level: float) -> float:
    """Lower Clopper-Pearson bound of a share: the truth is below it with chance <= `level`."""
    return 0.0 if count == 0 else float(special.bdtri(count - 1, num, 1 - level))


def _at_most(count: Ints, num: Ints, chance: float | Floats) -> Floats:
    """Binomial distribution function, elementwise; 0 under 0 and 1 from `num` on."""
    inside = np.clip(count, 0, np.maximum(num - 1, 0))
    shares = special.bdtr(inside.astype(np.float64), np.maximum(num, 1), chance)
    return np.where(count < 0, 0.0, np.where(count >= num, 1.0, shares))
