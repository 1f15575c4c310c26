import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.calibration.candidates import rungs_of
from offramp.policy.decision import fires


@given(scores=st.lists(st.floats(-3, 3, width=16), min_size=1, max_size=60), num=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_a_row_fires_at_its_first_rung_and_no_earlier(scores: list[float], num: int) -> None:
    rows = np.array([scores])
    rungs = rungs_of(rows, num)
    [falling] = rungs.thresholds
    first = rungs.of(rows)[0]
    assert np.all(np.diff(falling) < 0)
    assert len(falling) <= num
    for rung in range(len(falling) + 1):
        [threshold] = rungs.at(np.array([rung]))
        fired = [fires(float(score), threshold) for score in rows[0]]
        np.testing.assert_array_equal(fired, first <= rung)
    assert np.all(first <= len(falling))  # the last rung lets all fire


def test_rungs_are_at_equal_steps_in_rank() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 1000))
    fired = [(scores >= each).mean() for each in rungs_of(scores, 8).thresholds[0]]
    np.testing.assert_allclose(fired, np.arange(1, 9) / 8)


def test_with_few_values_thresholds_are_between_them() -> None:
    rungs = rungs_of(np.array([[1.0, 3, 2, 3, 1], [1, 1, 1, 1, 1]]))
    np.testing.assert_array_equal(rungs.thresholds[0], [2.5, 1.5, 1])
    np.testing.assert_array_equal(rungs.thresholds[1], [1])


def test_an_exit_without_finite_scores_has_no_rung() -> None:
    scores = np.array([[-np.inf, -np.inf, -np.inf], [0.5, -np.inf, 0.7]])
    rungs = rungs_of(scores)
    assert [len(each) for each in rungs.thresholds] == [0, 2]
    np.testing.assert_array_equal(rungs.of(scores), [[1, 1, 1], [2, 3, 1]])
    assert rungs.at(np.array([0, 1])) == (None, 0.6)
