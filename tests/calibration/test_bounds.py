import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offramp.calibration.bounds import (
    betting_p,
    binomial_p,
    difference_p,
    share_bound,
    share_lower_bound,
)


@pytest.mark.parametrize("num", [5, 17, 40])
@pytest.mark.parametrize("limit", [0.05, 0.2, 0.45])
@pytest.mark.parametrize("level", [0.05, 0.3])
def test_a_drop_above_the_limit_is_certified_with_probability_at_most_the_level(
    num: int, limit: float, level: float
) -> None:
    # all outcomes that certify, and their whole chance, for rates up to the extreme
    certify = np.array(
        [
            (plus, minus)
            for plus, minus in product(range(num + 1), repeat=2)
            if plus + minus <= num and difference_p(plus, minus, num, limit, level) <= level
        ]
    ).reshape(-1, 2)
    counts = np.column_stack([certify, num - certify.sum(axis=1)])
    for down, extra in product(np.linspace(0, (1 - limit) / 2, 25), (0.0, 0.03)):
        up = min(limit + down + extra, 1 - down)
        if len(certify):
            rates = [up, down, max(0.0, 1 - up - down)]
            assert stats.multinomial.pmf(counts, num, rates).sum() <= level


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("limit", [0.002, 0.005, 0.01, 0.02, 0.05])
def test_without_losses_a_drop_needs_no_more_samples_than_the_exact_binomial(
    limit: float, level: float
) -> None:
    fewest = math.ceil(math.log(level) / math.log1p(-limit))
    found = difference_p(0, 0, fewest, limit, level)
    assert found <= level < difference_p(0, 0, fewest - 1, limit, level)
    np.testing.assert_allclose(found, (1 - limit) ** fewest, rtol=1e-4)


@given(
    num=st.integers(5, 2000),
    plus=st.floats(0, 0.3),
    minus=st.floats(0, 0.3),
    low=st.floats(0.001, 0.5),
    more=st.floats(0, 0.4),
)
@settings(max_examples=80, deadline=None)
def test_a_stricter_limit_never_has_a_smaller_p_value(
    num: int, plus: float, minus: float, low: float, more: float
) -> None:
    counts = int(plus * num), int(minus * num)
    loose, strict = (difference_p(*counts, num, limit, 0.1) for limit in (low + more, low))
    assert loose <= strict + 1e-12
    assert binomial_p(counts[0], num, low + more) <= binomial_p(counts[0], num, low)


@pytest.mark.parametrize("level", [0.05, 0.1])
def test_the_trinomial_test_is_nearly_as_powerful_as_a_z_test_with_known_variance(
    level: float,
) -> None:
    num, limit, differ = 5000, 0.01, 0.03
    z = stats.norm.isf(level)
    drop = limit - (z + 0.84) * math.sqrt(differ / num)  # a z-test certifies 80 %
    rates = [(differ + drop) / 2, (differ - drop) / 2, 1 - differ]
    draws = np.random.default_rng(0).multinomial(num, rates, 300)
    found = [difference_p(int(plus), int(minus), num, limit, level) for plus, minus, _ in draws]
    assert np.mean(np.array(found) <= level) > 0.75


def test_the_sample_size_for_zero_losses_is_log_level_over_log_one_minus_limit() -> None:
    fewest = math.ceil(math.log(0.05) / math.log(1 - 0.01))
    assert binomial_p(0, fewest, 0.01) <= 0.05 < binomial_p(0, fewest - 1, 0.01)


@pytest.mark.parametrize(("count", "num", "limit"), [(0, 7, 0.2), (3, 50, 0.1), (50, 50, 0.9)])
def test_the_binomial_p_value_is_the_distribution_function(
    count: int, num: int, limit: float
) -> None:
    np.testing.assert_allclose(binomial_p(count, num, limit), stats.binom.cdf(count, num, limit))


@pytest.mark.parametrize(("count", "num"), [(0, 20), (7, 300), (20, 20)])
def test_at_the_bound_of_a_share_so_few_losses_have_probability_level(count: int, num: int) -> None:
    bound = share_bound(count, num, 0.05)
    if count == num:
        assert bound == 1
    else:
        np.testing.assert_allclose(stats.binom.cdf(count, num, bound), 0.05)
    below = share_lower_bound(count, num, 0.05)
    if count:
        np.testing.assert_allclose(stats.binom.sf(count - 1, num, below), 0.05)
    else:
        assert below == 0


@pytest.mark.parametrize("high", [1.0, 0.75])
@pytest.mark.parametrize("bet", [0.05, 0.6, 1.9])
def test_betting_rejects_means_above_the_limit_with_probability_at_most_the_level(
    high: float, bet: float
) -> None:
    # two values, every outcome: 0.5 - small losses - or high, with a mean just at the limit
    num, limit, level = 40, 0.53, 0.1
    chance = (limit - 0.5) / (high - 0.5)
    ones = np.ones(num)
    win = [
        betting_p(np.r_[np.full(num - count, 0.5), np.full(count, high)], ones, limit, bet) <= level
        for count in range(num + 1)
    ]
    assert stats.binom.pmf(np.flatnonzero(win), num, chance).sum() <= level


def test_the_order_of_values_does_not_change_a_betting_p_value() -> None:
    values = np.random.default_rng(0).random(101)
    sizes = np.ones(101)
    first = betting_p(values, sizes, 0.6, 0.7)
    assert first == betting_p(values[::-1].copy(), sizes, 0.6, 0.7)


@pytest.mark.parametrize("size", [1, 3])
def test_betting_stays_valid_when_the_rows_of_a_cluster_are_copies(
    size: int,
) -> None:
    num, limit, level = 40, 0.05, 0.2
    sizes = np.where(np.arange(num) % 2, size, 1).astype(float)
    # large clusters lose with another chance than small ones; the mean per row is the limit
    chances = np.where(sizes > 1, 0.03, (limit * sizes.mean() * 2 - 0.03 * size))
    random = np.random.default_rng(0)
    won = [
        betting_p(sizes * (random.random(num) < chances), sizes, limit, 0.99 / size) <= level
        for _ in range(4000)
    ]
    assert sum(won) <= stats.binom.ppf(0.999, 4000, level)
