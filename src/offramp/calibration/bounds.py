"""Bounds: p-values that hold for every finite sample, for the hypothesis that a mean is too large.

Each is small only where the sample speaks against a mean above the limit: under the hypothesis,
P(p <= a) <= a for every a. Each falls, or stays, where the limit rises.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

NUISANCE = 20
"""One part in so many of the level pays for not knowing how often the two answers differ."""

_SPREAD, _FEW = 7.0, 20.0  # standard deviations and counts on both sides that are summed


def binomial_p(count: int, num: int, limit: float) -> float:
    """P(at most `count` of `num`) where each has chance `limit`: exact, for a share."""
    return float(_at_most(np.array(count), np.array(num), limit))


def difference_p(plus: int, minus: int, num: int, limit: float, level: float) -> float:
    """For losses in {-1, 0, 1}: hypothesis `mean loss >= limit`, to be tested at `level`.

    The sum of the losses is trinomial, and how often they are not 0 is a nuisance. Its upper
    Clopper-Pearson bound at level / NUISANCE confines it, and that much is added to the largest
    p-value within (Berger and Boos 1994). Where the two chances are small enough that their
    trinomial is a sum of two binomials (`_two_binomials`), the sum's distribution has one mode,
    within 1 of its mean (Darroch 1964), and the derivative of P(sum <= s) by the nuisance at fixed
    mean is n / 2 times P(S' = s + 1) - P(S' = s), S' being the sum of n - 1: at least 0 for
    s <= (n - 1) limit - 2. So the largest p-value is the one at the bound. Beyond that s the
    p-value is 1, and for larger chances Hoeffding's bound takes the exact probability's place.
    """
    total = plus - minus
    if num < 1 or total > (num - 1) * limit - 2:
        return 1.0
    spent = level / NUISANCE
    differ = share_bound(plus + minus, num, spent)
    if differ <= limit:
        return spent
    up, down = (differ + limit) / 2, (differ - limit) / 2
    tail = sum_at_most(total, num, up, down) if _two_binomials(up, down) else math.inf
    return min(1.0, spent + min(tail, hoeffding_p((1 + total / num) / 2, num, (1 + limit) / 2)))


def sum_at_most(total: int, num: int, up: float, down: float) -> float:
    """P(sum <= total) of `num` losses that are 1 with chance `up` and -1 with chance `down`.

    Summed over how many are -1. Of these, numbers too unlikely to matter are left out, and their
    chance (about 1e-12) is added, so that the sum is never too small.
    """
    middle, reach = num * down, _SPREAD * math.sqrt(num * down) + _FEW
    few = np.arange(max(0, math.floor(middle - reach)), min(num, math.ceil(middle + reach)) + 1)
    chance = np.exp(
        special.gammaln(num + 1)
        - special.gammaln(few + 1)
        - special.gammaln(num - few + 1)
        + special.xlogy(few, down)
        + special.xlog1py(num - few, -down)
    )
    rest = _at_most(total + few, num - few, min(1.0, up / (1 - down)) if down < 1 else 0.0)
    return float(chance @ rest + max(0.0, 1 - chance.sum()))


def hoeffding_p(mean: float, num: int, limit: float) -> float:
    """Bound on P(sample mean <= `mean`) for values in [0, 1] of mean `limit` (Hoeffding 1963)."""
    if mean >= limit:
        return 1.0
    apart = special.xlogy(mean, mean / limit) + special.xlogy(
        1 - mean, (1 - mean) / max(1 - limit, np.finfo(float).tiny)
    )
    return math.exp(-num * apart)


def betting_p(values: NDArray[np.float64], limit: float, bet: float) -> float:
    """For values in [0, 1]: 1 / wealth of one who bets on each that the mean is under `limit`.

    Wealth is the product of 1 + bet (limit - value): its mean is at most 1 where the values' mean
    is at least `limit`, so by Markov 1 / wealth is a p-value (Waudby-Smith and Ramdas 2024). `bet`
    is chosen without looking at the values and is below 1 / (1 - limit).
    """
    gains = np.log1p(bet * (limit - np.sort(values)))  # sorted, so that no order shows in the sum
    return math.exp(-max(0.0, float(gains.sum())))


def share_bound(count: int, num: int, level: float) -> float:
    """Upper Clopper-Pearson bound of a share: the truth is above it with chance <= `level`."""
    return 1.0 if count >= num else float(special.betaincinv(count + 1, num - count, 1 - level))


def _two_binomials(up: float, down: float) -> bool:
    """Whether a loss + 1 is the sum of two independent coins: its polynomial has real roots."""
    return math.sqrt(up) + math.sqrt(down) <= 1


def _at_most(
    count: NDArray[np.int64], num: NDArray[np.int64], chance: float
) -> NDArray[np.float64]:
    """Binomial distribution function, elementwise; 0 under 0 and 1 from `num` on."""
    inside = np.clip(count, 0, np.maximum(num - 1, 0))
    shares = special.betainc(np.maximum(num - inside, 1), inside + 1, 1 - chance)
    return np.where(count < 0, 0.0, np.where(count >= num, 1.0, shares))
