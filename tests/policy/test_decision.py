import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.policy.decision import by_deadline, fires, leaving, reached, soonest

EXPECTED = st.lists(st.floats(0, 100), min_size=1, max_size=6)
ALLOWED = st.floats(-10, 120)


@given(EXPECTED, ALLOWED)
def test_the_last_exit_in_time_is_found_for_any_order_of_expected_times(
    expected: list[float], allowed: float
) -> None:
    in_time = [exit for exit, ms in enumerate(expected) if ms <= allowed]
    assert reached(expected, allowed) == max(in_time, default=-1)


@given(EXPECTED, ALLOWED, st.integers(0, 5))
def test_one_request_is_decided_like_many(
    expected: list[float], allowed: float, leave: int
) -> None:
    exit = by_deadline(leave, soonest(expected).tolist(), allowed)
    assert exit == min(leave, int(reached(expected, [allowed])[0]))


@given(EXPECTED, ALLOWED, st.floats(0, 50))
def test_more_time_never_reaches_an_earlier_exit(
    expected: list[float], allowed: float, more: float
) -> None:
    assert reached(expected, allowed + more) >= reached(expected, allowed)


def test_an_exit_fires_at_exactly_its_threshold_and_a_disabled_one_never() -> None:
    assert fires(0.5, 0.5)
    assert not fires(0.4999, 0.5)
    assert not fires(9.0, None)


@given(
    st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=3, max_size=3), min_size=1),
    st.lists(st.sampled_from([None, 0.1, 0.5, 0.9]), min_size=3, max_size=3),
)
def test_one_sample_is_decided_like_all_together(
    samples: list[list[float]], thresholds: list[float | None]
) -> None:
    leaves = leaving(np.array(samples).T, thresholds)
    for scores, exit in zip(samples, leaves, strict=True):
        fired = [fires(score, each) for score, each in zip(scores, thresholds, strict=True)]
        assert exit == (fired.index(True) if any(fired) else 3)


@pytest.mark.parametrize("given_exits", [2, 3])
def test_the_first_exit_that_fires_answers_or_else_the_last(given_exits: int) -> None:
    scores = np.array([[0.9, 0.1, 0.1, 0.9], [0.9, 0.9, 0.1, 0.9], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(leaving(scores[:given_exits], (0.5, 0.5)), [0, 1, 2, 0])
    np.testing.assert_array_equal(leaving(scores[:given_exits], (None, 0.5)), [1, 1, 2, 1])
