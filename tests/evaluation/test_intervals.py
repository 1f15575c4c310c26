import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.evaluation.intervals import (
    Interval,
    mean_interval,
    percentile_interval,
    resampled_interval,
    resampled_means,
    wilson,
)

VALUES = st.tuples(st.integers(1, 4), st.integers(2, 11)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-5, 5, width=16))
)


def interval(values: np.ndarray, seed: int = 0) -> Interval:
    return percentile_interval(resampled_means([values], draws=400, seed=seed)[:, 0])


def test_wilson_intervals_match_a_hand_calculation() -> None:
    assert wilson(0.5, 10).low == pytest.approx(0.2366, abs=1e-4)  # Wilson 1927, 5 of 10
    assert wilson(0.5, 10).high == pytest.approx(0.7634, abs=1e-4)
    assert wilson(1.0, 20).low == pytest.approx(0.8389, abs=1e-4)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_intervals_contain_the_share_and_stay_between_0_and_1(
    samples: int, part: float
) -> None:
    share = round(part * samples) / samples
    found = wilson(share, samples)
    assert share in found
    assert -1e-12 <= found.low <= found.high <= 1 + 1e-12


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_bootstrap_means_stay_between_the_extremes(values: np.ndarray) -> None:
    means = resampled_means([values], draws=100)
    assert means.shape == (100, 1)
    assert values.min() - 1e-9 <= means.min() <= means.max() <= values.max() + 1e-9


@given(VALUES)
@settings(max_examples=50, deadline=None)
def test_the_bootstrap_interval_contains_the_mean(values: np.ndarray) -> None:
    found = interval(values)
    assert found.low - 1e-9 <= values.mean() <= found.high + 1e-9


@given(VALUES)
@settings(max_examples=20, deadline=None)
def test_a_constant_difference_has_the_same_value_in_every_draw(values: np.ndarray) -> None:
    assert not resampled_means([values - values, values], draws=50)[:, 0].any()


def test_all_columns_share_the_draws() -> None:
    values = np.random.default_rng(0).normal(size=(3, 30))
    means = resampled_means([values, values + 2.0], draws=50)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 2.0)


def test_the_interval_depends_on_the_seed_only() -> None:
    values = np.random.default_rng(0).normal(size=(3, 30))
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


def test_samples_of_a_unit_are_drawn_together() -> None:
    values = np.array([[0.0, 0.0, 6.0, 6.0]])
    means = resampled_means([values], np.array([0, 0, 1, 1]), draws=300)
    assert set(means.ravel()) == {0.0, 3.0, 6.0}


def test_units_are_weighted_by_their_number_of_samples() -> None:
    values = np.array([[0.0, 0.0, 0.0, 6.0]])
    means = resampled_means([values], np.array([0, 0, 0, 1]), draws=300)
    assert set(means.ravel()) == {0.0, 1.5, 6.0}


def test_the_bootstrap_spread_over_samples_is_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=(1, 900))
    spread = resampled_means([values], draws=4000).std()
    assert spread == pytest.approx(values.std() / 30, rel=0.05)


def test_seeds_are_resampled() -> None:
    values = np.repeat([[0.0], [3.0]], 5, axis=1)  # all spread lies between two seeds
    means = resampled_means([values], draws=2000).ravel()
    assert set(means) == {0.0, 1.5, 3.0}
    assert np.mean(means == 1.5) == pytest.approx(0.5, abs=0.05)


def test_draws_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 13))
    at_once = resampled_means([values], draws=40)
    monkeypatch.setattr("offramp.evaluation.intervals._CHUNK", 30)
    np.testing.assert_allclose(resampled_means([values], draws=40), at_once, rtol=1e-12)


def coverage(seed_spread: float, seeds: int, worlds: int = 400) -> float:
    """Share of simulated worlds whose interval holds the true difference, 0.02."""
    hits = 0
    for world in range(worlds):
        random = np.random.default_rng(world)
        per_image = random.normal(0.0, 0.3, 500)
        per_seed = random.normal(0.0, seed_spread, (seeds, 1))
        noise = random.normal(0.0, 0.2, (seeds, 500))
        values = 0.02 + per_image + per_seed + noise
        hits += 0.02 in percentile_interval(resampled_means([values], draws=500, seed=world)[:, 0])
    return hits / worlds


@pytest.mark.slow
def test_95_in_100_intervals_contain_the_truth_if_samples_dominate_the_spread() -> None:
    assert 0.92 <= coverage(seed_spread=0.005, seeds=3) <= 0.985


@pytest.mark.slow
def test_intervals_are_too_narrow_if_three_seeds_differ_a_lot() -> None:
    assert 0.6 <= coverage(seed_spread=0.05, seeds=3) <= 0.9


def test_the_interval_of_independent_losses_is_that_of_bonett_and_price() -> None:
    losses = np.repeat([1.0, -1.0, 0.0], [6, 2, 52])
    lost, won = 7 / 62, 3 / 62
    reach = 1.959964 * ((lost + won - (lost - won) ** 2) / 62) ** 0.5
    found = mean_interval(losses, None, (-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((lost - won - reach, lost - won + reach))


@given(st.integers(0, 1000), st.integers(2, 9))
@settings(max_examples=50)
def test_an_interval_over_units_contains_the_mean_and_stays_within_bounds(
    seed: int, units: int
) -> None:
    random = np.random.default_rng(seed)
    values, of = random.integers(0, 2, 23).astype(float), random.integers(0, units, 23)
    found = mean_interval(values, of, (0.0, 1.0))
    assert 0 <= found.low <= values.mean() <= found.high <= 1
    assert found.high - found.low > 0.1


def test_unbounded_errors_get_a_student_t_interval() -> None:
    found = mean_interval(np.array([1.0, 2.0, 6.0]), None, None)
    assert (found.low, found.high) == pytest.approx((3 - 6.5724, 3 + 6.5724), abs=1e-3)


def cluster_coverage(
    loss: float, won: float, units: int, size: int, *, resampled: bool, worlds: int = 150
) -> float:
    """Share of worlds whose interval holds loss - won; half of a unit's rows share their fate."""
    hits = 0
    for world in range(worlds):
        random = np.random.default_rng(world)
        shared = random.random((units, 1))
        luck = np.where(random.random((units, size)) < 0.5, shared, random.random((units, size)))
        values = np.where(luck < loss, 1.0, np.where(luck < loss + won, -1.0, 0.0)).ravel()
        of = np.repeat(np.arange(units), size)
        if resampled:
            drawn = resampled_means([values[np.newaxis]], of, draws=300, seed=world)[:, 0]
            found = resampled_interval(drawn, values[np.newaxis], of, (-1.0, 1.0))
        else:
            found = mean_interval(values, of, (-1.0, 1.0))
        hits += loss - won in found
    return hits / worlds


@pytest.mark.parametrize(("units", "size"), [(10, 5), (20, 2), (100, 2)])
@pytest.mark.parametrize(("loss", "won"), [(0.01, 0.0), (0.1, 0.1), (0.3, 0.1)])
def test_intervals_over_few_units_contain_the_truth(
    units: int, size: int, loss: float, won: float
) -> None:
    assert cluster_coverage(loss, won, units, size, resampled=False) >= 0.92


@pytest.mark.parametrize("units", [20, 100, 200])
def test_bootstrap_intervals_contain_a_loss_of_one_point(units: int) -> None:
    assert cluster_coverage(0.01, 0.0, units, 2, resampled=True) >= 0.92
