import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from offramp.errors import PlanError
from offramp.simulation import Arrivals, Bursts, FixedRate, Poisson

KINDS = [FixedRate(per_second=40), Poisson(per_second=40), Bursts(per_second=40, burst_size=7)]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("arrivals", KINDS, ids=lambda kind: kind.kind)
@given(seed=st.integers(0, 2**32 - 1), requests=st.integers(1, 50))
def test_times_ascend_from_zero_or_later(arrivals: Arrivals, seed: int, requests: int) -> None:
    times = arrivals.times_ms(requests, random(seed))
    assert times.shape == (requests,)
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("arrivals", KINDS, ids=lambda kind: kind.kind)
def test_the_rate_is_as_requested(arrivals: Arrivals) -> None:
    times = arrivals.times_ms(40_000, random())
    assert 1000 * 40_000 / times[-1] == pytest.approx(40, rel=0.04)


@pytest.mark.parametrize("kind", [Poisson, FixedRate])
def test_twice_the_rate_halves_the_gaps_of_the_same_draws(kind: type) -> None:
    slow, fast = (kind(per_second=rate).times_ms(9, random()) for rate in (10, 20))
    np.testing.assert_allclose(slow, 2 * fast)


def test_poisson_gaps_have_equal_mean_and_standard_deviation() -> None:
    gaps = np.diff(Poisson(per_second=100).times_ms(20_000, random()))
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)


def test_requests_of_a_burst_are_separated_by_its_gap() -> None:
    times = Bursts(per_second=1, burst_size=4, gap_ms=2.5).times_ms(4, random())
    np.testing.assert_allclose(np.diff(times), 2.5)


def test_the_last_burst_may_be_incomplete() -> None:
    assert len(Bursts(per_second=1, burst_size=4).times_ms(6, random())) == 6


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_not_positive_is_refused(rate: float) -> None:
    with pytest.raises(PlanError, match="per_second"):
        Poisson(per_second=rate)


def test_arrivals_are_restored_from_json() -> None:
    adapter: TypeAdapter[Arrivals] = TypeAdapter(Arrivals)
    assert [adapter.validate_python(kind.model_dump()) for kind in KINDS] == KINDS
