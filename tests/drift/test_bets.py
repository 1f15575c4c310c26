import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from offramp.drift.bets import bets_on

SHARES = st.lists(st.integers(1, 500), min_size=2, max_size=6).map(
    lambda counts: np.array(counts) / sum(counts)
)
SHIFTS = {0.045: 0.75, 0.12: 0.25}


@given(SHARES)
def test_every_bet_is_fair_and_the_stakes_add_up(shares: np.ndarray) -> None:
    bets = bets_on(shares, SHIFTS)
    width = bets.high - bets.low
    mean = width * np.exp(bets.inside) + (1 - width) * np.exp(bets.outside)
    np.testing.assert_allclose(mean, 1.0)
    assert np.isclose(bets.stakes.sum(), 1.0)
    assert (bets.stakes > 0).all()


def test_with_two_exits_bets_are_on_the_first_in_both_directions() -> None:
    bets = bets_on(np.array([0.5, 0.5]), {0.05: 1.0})
    np.testing.assert_allclose(bets.high, [0.5, 0.5])
    np.testing.assert_allclose(np.exp(bets.inside), [1.1, 0.9])
    np.testing.assert_allclose(np.exp(bets.outside), [0.9, 1.1])


def test_with_more_exits_bets_are_on_cumulative_and_single_shares() -> None:
    bets = bets_on(np.array([0.2, 0.3, 0.4, 0.1]), {0.05: 1.0}, directions=(1,))
    intervals = np.stack([bets.low, bets.high], axis=1)
    np.testing.assert_allclose(intervals, [[0, 0.2], [0, 0.5], [0, 0.9], [0.2, 0.5], [0.5, 0.9]])


def test_a_small_share_is_moved_to_no_less_than_a_quarter() -> None:
    bets = bets_on(np.array([0.02, 0.98]), {0.05: 1.0}, directions=(-1,))
    np.testing.assert_allclose(np.exp(bets.inside), 0.25)


def test_a_factor_depends_on_the_side_that_a_value_falls_on() -> None:
    bets = bets_on(np.array([0.5, 0.5]), {0.05: 1.0}, directions=(1,))
    factors = np.exp(bets.log_factors(np.array([0.1, 0.5, 0.51])))
    np.testing.assert_allclose(factors, [[1.1], [1.1], [0.9]])
