import numpy as np

from offramp.task import ACCURACY, MEAN_ABSOLUTE_ERROR, measure_of


def test_accuracy_counts_right_answers_and_more_is_better() -> None:
    logits = np.array([[[1, 0], [0, 2]]], np.float32)
    assert measure_of("classification").values(logits, np.array([0, 0])).tolist() == [[1, 0]]
    assert ACCURACY.better(0.5, 0.4)
    assert not ACCURACY.better(0.5, 0.5)


def test_error_is_the_distance_and_less_is_better() -> None:
    values = np.array([[[1.5], [-2]]], np.float32)
    measured = measure_of("regression").values(values, np.array([1.0, 1.0]))
    assert measured.tolist() == [[0.5, 3.0]]
    assert MEAN_ABSOLUTE_ERROR.better(0.4, 0.5)
    assert not MEAN_ABSOLUTE_ERROR.better(0.5, 0.5)


def test_a_difference_shows_its_sign_and_a_tiny_one_none_below_zero() -> None:
    assert ACCURACY.difference_text(0.0123) == "+1.23"
    assert ACCURACY.difference_text(-0.0123) == "-1.23"
    assert ACCURACY.difference_text(-1e-9) == "+0.00"
    assert MEAN_ABSOLUTE_ERROR.difference_text(-0.5) == "-0.5000"
    assert ACCURACY.text(0.9349) == "93.5"
