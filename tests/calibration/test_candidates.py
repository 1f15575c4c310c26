import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.calibration.candidates import levels_of
from offramp.policy.decision import fires


@given(scores=st.lists(st.floats(-3, 3, width=16), min_size=1, max_size=60), num=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_row_fires_at_its_first_level_and_not_before(scores: list[float], num: int) -> None:
    rows = np.array([scores])
    levels = levels_of(rows, num)
    [falling] = levels.thresholds
    first = levels.of(rows)[0]
    assert np.all(np.diff(falling) < 0)
    assert len(falling) <= num
    for level in range(len(falling) + 1):
        [threshold] = levels.at(np.array([level]))
        fired = [fires(float(score), threshold) for score in rows[0]]
        np.testing.assert_array_equal(fired, first <= level)
    assert np.all(first <= len(falling))  # the last level lets all fire


def test_levels_are_at_equal_steps_of_rank() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 1000))
    fired = [(scores >= each).mean() for each in levels_of(scores, 8).thresholds[0]]
    np.testing.assert_allclose(fired, np.arange(1, 9) / 8)


def test_thresholds_of_few_values_lie_between_them() -> None:
    levels = levels_of(np.array([[1.0, 3, 2, 3, 1], [1, 1, 1, 1, 1]]))
    np.testing.assert_array_equal(levels.thresholds[0], [2.5, 1.5, 1])
    np.testing.assert_array_equal(levels.thresholds[1], [1])


def test_an_exit_that_is_never_sure_has_no_level() -> None:
    scores = np.array([[-np.inf, -np.inf, -np.inf], [0.5, -np.inf, 0.7]])
    levels = levels_of(scores)
    assert [len(each) for each in levels.thresholds] == [0, 2]
    np.testing.assert_array_equal(levels.of(scores), [[1, 1, 1], [2, 3, 1]])
    assert levels.at(np.array([0, 1])) == (None, 0.6)
