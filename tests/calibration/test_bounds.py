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
    hoeffding_p,
    share_bound,
    sum_at_most,
)


def chances_of_sums(num: int, up: float, down: float) -> np.ndarray:
    chances = np.array([1.0])
    for _ in range(num):
        chances = np.convolve(chances, [down, 1 - up - down, up])
    return chances


@pytest.mark.parametrize("num", [5, 17, 40])
@pytest.mark.parametrize("limit", [0.05, 0.2, 0.45])
@pytest.mark.parametrize("level", [0.05, 0.3])
def test_a_drop_over_the_limit_is_certified_with_chance_at_most_the_level(
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


@given(
    num=st.integers(1, 30),
    up=st.floats(0, 0.5),
    down=st.floats(0, 0.49),
    total=st.integers(-31, 31),
)
@settings(max_examples=60, deadline=None)
def test_the_chance_of_a_sum_is_that_of_adding_losses_one_by_one(
    num: int, up: float, down: float, total: int
) -> None:
    exact = chances_of_sums(num, up, down)[: max(0, total + num + 1)].sum()
    np.testing.assert_allclose(sum_at_most(total, num, up, down), exact, atol=1e-12)


@given(
    num=st.integers(10, 3000),
    limit=st.floats(0.001, 0.3),
    differ=st.floats(0, 0.5),
    under=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_the_more_often_answers_differ_the_likelier_a_small_sum(
    num: int, limit: float, differ: float, under: int
) -> None:
    # the law that lets one evaluation stand for all nuisances
    total = math.floor((num - 1) * limit - 2) - under
    rates = [limit + (0.5 - limit) * share * differ for share in np.linspace(0, 1, 9)]
    tails = [sum_at_most(total, num, (rate + limit) / 2, (rate - limit) / 2) for rate in rates]
    assert np.all(np.diff(tails) >= -1e-12)


@given(
    num=st.integers(5, 2000),
    plus=st.floats(0, 0.3),
    minus=st.floats(0, 0.3),
    low=st.floats(0.001, 0.5),
    more=st.floats(0, 0.4),
)
@settings(max_examples=80, deadline=None)
def test_a_stricter_limit_is_never_easier(
    num: int, plus: float, minus: float, low: float, more: float
) -> None:
    counts = int(plus * num), int(minus * num)
    loose, strict = (difference_p(*counts, num, limit, 0.1) for limit in (low + more, low))
    assert loose <= strict + 1e-12
    assert binomial_p(counts[0], num, low + more) <= binomial_p(counts[0], num, low)


@pytest.mark.parametrize("level", [0.05, 0.1])
def test_the_trinomial_test_is_nearly_as_powerful_as_one_that_knows_the_variance(
    level: float,
) -> None:
    num, limit, differ = 5000, 0.01, 0.03
    z = stats.norm.isf(level)
    drop = limit - (z + 0.84) * math.sqrt(differ / num)  # a z-test certifies 80 %
    rates = [(differ + drop) / 2, (differ - drop) / 2, 1 - differ]
    draws = np.random.default_rng(0).multinomial(num, rates, 300)
    found = [difference_p(int(plus), int(minus), num, limit, level) for plus, minus, _ in draws]
    assert np.mean(np.array(found) <= level) > 0.65


def test_no_loss_at_all_certifies_a_share_from_log_level_over_log_of_the_rest() -> None:
    fewest = math.ceil(math.log(0.05) / math.log(1 - 0.01))
    assert binomial_p(0, fewest, 0.01) <= 0.05 < binomial_p(0, fewest - 1, 0.01)


@pytest.mark.parametrize(("count", "num", "limit"), [(0, 7, 0.2), (3, 50, 0.1), (50, 50, 0.9)])
def test_the_binomial_p_value_is_its_distribution_function(
    count: int, num: int, limit: float
) -> None:
    np.testing.assert_allclose(binomial_p(count, num, limit), stats.binom.cdf(count, num, limit))


@pytest.mark.parametrize(("count", "num"), [(0, 20), (7, 300), (20, 20)])
def test_a_bound_of_a_share_is_where_so_few_have_the_chance_of_the_level(
    count: int, num: int
) -> None:
    bound = share_bound(count, num, 0.05)
    if count == num:
        assert bound == 1
    else:
        np.testing.assert_allclose(stats.binom.cdf(count, num, bound), 0.05)


def test_hoeffdings_bound_is_never_under_the_exact_chance() -> None:
    for count, limit in product(range(31), (0.01, 0.3, 0.9)):
        assert hoeffding_p(count / 30, 30, limit) >= stats.binom.cdf(count, 30, limit) - 1e-12


@pytest.mark.parametrize("high", [1.0, 0.75])
@pytest.mark.parametrize("bet", [0.05, 0.6, 1.9])
def test_betting_on_values_over_the_limit_wins_with_chance_at_most_the_level(
    high: float, bet: float
) -> None:
    # two values, every outcome: 0.5 - small losses - or high, with a mean just at the limit
    num, limit, level = 40, 0.53, 0.1
    chance = (limit - 0.5) / (high - 0.5)
    win = [
        betting_p(np.r_[np.full(num - count, 0.5), np.full(count, high)], limit, bet) <= level
        for count in range(num + 1)
    ]
    assert stats.binom.pmf(np.flatnonzero(win), num, chance).sum() <= level


def test_the_order_of_the_values_does_not_show_in_a_bet() -> None:
    values = np.random.default_rng(0).random(101)
    assert betting_p(values, 0.6, 0.7) == betting_p(values[::-1].copy(), 0.6, 0.7)
