from typing import get_args

import numpy as np
import pytest

from offramp.errors import DataError, PlanError, ShapeError
from offramp.task import (
    ACCURACY,
    MEAN_ABSOLUTE_ERROR,
    Task,
    check_output_shape,
    measure_of,
    training_labels,
)

LABELS = np.arange(11) % 4


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


def test_the_error_of_a_regression_is_named_by_its_value() -> None:
    people = measure_of("regression", ["people"])
    assert (people.head, people.root_head) == ("MAE (people)", "RMSE (people)")
    assert people.difference_head == people.noun == "MAE (people)"
    assert people.amount(3.25) == "3.250"
    assert "often call MSE" in people.note
    assert measure_of("regression").head == "MAE"
    assert measure_of("regression", ["ant", "bee"]).head == "MAE"
    classes = measure_of("classification", ["ant"])
    assert (classes.head, classes.noun, classes.note) == ("accuracy %", "accuracy", "")
    assert classes.amount(0.912) == "91.2 %"
    assert people.summary(3.25, 4.12) == "MAE (people) 3.250, RMSE (people) 4.120"
    assert classes.summary(0.912, None) == "accuracy 91.2 %"


def test_the_root_of_squared_errors_is_a_mean_over_seeds() -> None:
    errors = np.array([[3.0, 4.0], [0.0, 1.0]])
    one, other = np.sqrt(25 / 2), np.sqrt(1 / 2)
    assert MEAN_ABSOLUTE_ERROR.root(errors) == pytest.approx((one + other) / 2)
    assert MEAN_ABSOLUTE_ERROR.root(errors[0]) == pytest.approx(one)
    assert MEAN_ABSOLUTE_ERROR.root_texts([one, None]) == ["3.536", ""]
    assert ACCURACY.root(errors) is None
    assert ACCURACY.root_texts([None]) == []


def test_labels_must_fit_the_outputs() -> None:
    training_labels(LABELS, 4, ("a", "b", "c", "d"))
    with pytest.raises(DataError, match=r"from 0 to 3, .* classes are 0 to 2: 2 of 11"):
        training_labels(LABELS, 3)
    with pytest.raises(DataError, match="from -1 to 2"):
        training_labels(LABELS - 1, 4)


def test_the_first_label_that_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="the first is that of sample 2"):
        training_labels(np.array([0, 1, 3, 2, 5]), 3)


def test_class_names_must_be_as_many_as_the_outputs() -> None:
    with pytest.raises(DataError, match="3 classes but the model has 4 outputs"):
        training_labels(LABELS, 4, ("a", "b", "c"))


def test_values_are_not_classes() -> None:
    with pytest.raises(DataError, match=r"floats such as 0.5, .* task='regression'"):
        training_labels(LABELS.astype(np.float32) + np.float32(0.5), 4)
    values = training_labels(LABELS.astype(np.float64), 1, ("people",), task="regression")
    assert values.dtype == np.float32


def test_probabilities_are_not_trained_on_yet() -> None:
    for task in get_args(Task):
        with pytest.raises(DataError, match="each label is 4 probabilities"):
            training_labels(np.full((3, 4), 0.25, np.float32), 4, task=task)


@pytest.mark.parametrize(
    ("shape", "task", "wanted"),
    [((3, 4), "classification", r"\(classes,\)"), ((2,), "regression", r"\(1,\)")],
)
def test_a_model_must_answer_in_the_shape_of_its_task(
    shape: tuple[int, ...], task: Task, wanted: str
) -> None:
    check_output_shape((1,), task)
    with pytest.raises(ShapeError, match=f"{task} needs {wanted}"):
        check_output_shape(shape, task)


def test_a_misspelt_task_is_refused_with_the_tasks_there_are() -> None:
    with pytest.raises(PlanError, match=r"task is 'regresion', .* did you mean 'regression'\?"):
        check_output_shape((1,), "regresion")  # type: ignore[arg-type]
