"""p-values, valid for every sample size, for the hypothesis that a mean loss exceeds a limit.

A small p-value is evidence that the mean is at most the limit: under the hypothesis, P(p <= a) <= a
for every a. No p-value increases when the limit increases, so whatever is certified for a strict
limit is also certified for a looser one.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import special

_SPENT = 1e-6  # share of the level spent on the confidence interval of the nuisance
_REACH, _FEW = 6.0, 15.0  # the sum covers this many standard deviations plus counts per side
_STEP, _CLOSER = 0.15, 0.1  # grid steps: relative to the sum's variance, to the rate

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def binomial_p(count: int, num: int, limit: float) -> float:
    """Binomial probability of at most `count` of `num` at rate `limit`: an exact p-value."""
    return float(_at_most(np.array(count), np.array(num), limit))


def difference_p(plus: int, minus: int, num: int, limit: float, level: float) -> float:
    """p-value of `mean loss >= limit` for losses in {-1, 0, 1}, to be compared with `level`.

    The test is exact and unconditional. Its statistic is `_upper(plus, minus)`, the upper end of
    the score interval for the mean. The nuisance parameter `down` is the probability of a loss of
    -1; at the boundary, a loss of 1 then has probability `limit + down`. The p-value is the
    probability of a statistic no larger than the observed one, maximised over `down`.

    It is enough to maximise at the boundary `mean = limit`, and the p-value decreases in the limit:
    `_upper` increases in `plus` and does not increase in `minus`, so increasing any loss can only
    move a sample out of the set of those with a small statistic. Raising P(1) at fixed P(-1)
    therefore only lowers the probability of that set.

    If no loss occurs, only samples of mostly gains have a smaller statistic, so at the usual levels
    the p-value equals the binomial one, (1 - limit)^num.

    The maximum is taken over a confidence interval for the nuisance, which costs a share _SPENT of
    the level and excludes rates that contradict the sample (Berger and Boos 1994). Within the
    interval, the probability is a smooth function of the nuisance on the scale of the sum's
    variance. It is evaluated on a grid with steps of _STEP times that scale, then on a finer grid
    around the maximum.
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
    """Upper end of the score interval for the mean of the sum (variance: mean + 2 E[minus])."""
    return plus - minus + z * z / 2 + z * math.sqrt(plus + minus + z * z / 4)


def _most_plus(plus: int, minus: int, few: Ints, z: float) -> Ints:
    """For each count of -1, the largest count of 1 with `_upper` at most the observed; -1 if none.

    `_upper` is quadratic in v = sqrt(plus + minus + z^2 / 4): v^2 + z v - 2 minus + z^2 / 4.
    """
    allowed = _upper(plus, minus, z) + 1e-9 + 2 * few - z * z / 4
    root = (np.sqrt(np.maximum(z * z + 4 * allowed, 0)) - z) / 2
    found = np.floor(root**2 - few - z * z / 4 + 1e-9)
    return np.where((allowed < 0) | (found < 0), -1, found).astype(np.int64)


def _likely(num: int, low: float, high: float) -> Ints:
    """Counts of -1 that have non-negligible probability at some rate from `low` to `high`."""
    first = num * low - _REACH * math.sqrt(num * low) - _FEW
    last = num * high + _REACH * math.sqrt(num * high) + _FEW
    return np.arange(max(0, math.floor(first)), min(num, math.ceil(last)) + 1)


def _steps(num: int, limit: float, low: float, high: float) -> Floats:
    """Grid of rates of -1 from `low` to `high`.

    The grid is finer where -1 or 0 is rare, down to half a count, because the probability changes
    with single counts there.
    """
    rates = [low]
    while rates[-1] < high:
        here = rates[-1]
        step = min(_STEP * (limit + 2 * here), _CLOSER * min(here, 1 - limit - 2 * here))
        rates.append(min(high, here + max(step, 0.5 / num)))
    return np.array(rates)


def _chance_of_at_most(most: Ints, few: Ints, num: int, up: Floats, down: Floats) -> Floats:
    """P(count of 1 <= most[count of -1]), (Q,), for `num` losses with probabilities up, down (Q,).

    The sum runs over `few`, the counts of -1. The probability of all other counts (about 1e-9 at
    most) is added, so that the result is never too small.
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
    """p-value 1 / wealth of a bettor who bets on each cluster that the mean loss is below `limit`.

    A cluster is a set of rows that may depend on each other; `sums` holds the total loss of each
    cluster. The population's mean loss per row is E[sum] / E[size], which is at least `limit` if
    and only if E[sum - limit * size] >= 0. The wealth is the product of 1 - bet * (sum - limit *
    size) over the independent clusters. Under the hypothesis its mean is at most 1, so 1 / wealth
    is a p-value by Markov's inequality (Waudby-Smith and Ramdas 2024), however rows depend on each
    other within a cluster. `bet` must be chosen without looking at these clusters, and small enough
    that no factor can be negative.
    """
    gains = np.log1p(bet * (limit * sizes - sums))
    return math.exp(-max(0.0, math.fsum(gains.tolist())))


def share_bound(count: int, num: int, level: float) -> float:
    """Upper Clopper-Pearson bound: the true share exceeds it with probability <= `level`."""
    return 1.0 if count >= num else float(special.bdtri(count, num, level))


def share_lower_bound(count: int, num: int, level: float) -> float:
    """Lower Clopper-Pearson bound: the true share is below it with probability <= `level`."""
    return 0.0 if count == 0 else float(special.bdtri(count - 1, num, 1 - level))


def _at_most(count: Ints, num: Ints, chance: float | Floats) -> Floats:
    """Binomial distribution function, elementwise; 0 for `count` < 0 and 1 for `count` >= `num`."""
    inside = np.clip(count, 0, np.maximum(num - 1, 0))
    shares = special.bdtr(inside.astype(np.float64), np.maximum(num, 1), chance)
    return np.where(count < 0, 0.0, np.where(count >= num, 1.0, shares))
