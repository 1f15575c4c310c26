import numpy as np
import pytest
from pydantic import TypeAdapter

from offramp.errors import PlanError
from offramp.simulation import Constant, Lognormal, Trace, Transmission, Uniform

KINDS = [
    Constant(ms=3),
    Uniform(low_ms=1, high_ms=4),
    Lognormal(median_ms=5, sigma=0.5),
    Trace(values_ms=(1.0, 7.0)),
]


def times(transmission: Transmission, draws: int = 20_000) -> np.ndarray:
    return transmission.draw_ms(draws, np.random.default_rng(0))


def test_a_constant_time_is_always_the_same() -> None:
    assert set(times(Constant(ms=3), 5)) == {3.0}


def test_a_uniform_time_stays_within_its_range() -> None:
    drawn = times(Uniform(low_ms=1, high_ms=4))
    assert drawn.min() >= 1
    assert drawn.max() <= 4
    assert drawn.mean() == pytest.approx(2.5, rel=0.02)


def test_a_lognormal_time_has_its_median_and_tail() -> None:
    drawn = times(Lognormal(median_ms=5, sigma=0.5))
    assert np.median(drawn) == pytest.approx(5, rel=0.02)
    assert np.quantile(drawn, 0.95) / 5 == pytest.approx(2.28, rel=0.03)


def test_a_trace_repeats_what_was_measured() -> None:
    drawn = times(Trace(values_ms=(1.0, 7.0)))
    assert set(drawn) == {1.0, 7.0}
    assert drawn.mean() == pytest.approx(4, rel=0.03)


def test_impossible_times_are_refused() -> None:
    with pytest.raises(PlanError, match="swap them"):
        Uniform(low_ms=4, high_ms=1)
    with pytest.raises(PlanError):
        Constant(ms=-1)
    with pytest.raises(PlanError):
        Trace(values_ms=())
    with pytest.raises(PlanError):
        Lognormal(median_ms=0, sigma=1)


def test_transmissions_are_restored_from_json() -> None:
    adapter: TypeAdapter[Transmission] = TypeAdapter(Transmission)
    assert [adapter.validate_json(kind.model_dump_json()) for kind in KINDS] == KINDS
