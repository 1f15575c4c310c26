import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.evaluation import tradeoff
from offramp.outputs import ExitOutputs

RIGHT = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])  # exits x samples


def outputs(right: np.ndarray = RIGHT, **changes: Any) -> ExitOutputs:
    given: dict[str, Any] = {
        "outputs": np.stack([1 - right, right], axis=-1),
        "labels": np.ones(right.shape[1], int),
        "stage_flops": [1, 1, 10],
        "branch_flops": [1, 1, 0],
    }
    return ExitOutputs(**(given | changes))


def test_a_more_expensive_exit_that_is_not_better_is_impractical() -> None:
    points = tradeoff(outputs())
    assert [point.practical for point in points] == [True, False, True]
    assert [point.flops for point in points] == [2, 3, 12]
    assert [point.flops_with_passed for point in points] == [2, 4, 14]
    assert [point.acceleration for point in points] == [6.0, 4.0, 1.0]
    assert points[1].value == pytest.approx(1 / 3)


def test_exits_with_equal_cost_and_accuracy_are_both_practical() -> None:
    points = tradeoff(outputs(RIGHT[[0, 0, 2]], stage_flops=[1, 0, 10]))
    assert [point.practical for point in points] == [True, True, True]


def test_a_smaller_error_is_better_in_a_regression() -> None:
    values = np.array([[2.0, 2.0], [4.0, 4.0], [1.0, 1.0]], np.float32)[..., np.newaxis]
    points = tradeoff(outputs(outputs=values, labels=[0.0, 0.0], task="regression"))
    assert [point.value for point in points] == [2.0, 4.0, 1.0]
    assert [point.practical for point in points] == [True, False, True]
    assert "MAE" in str(points)
    assert points.as_json()["exits"][0]["value"] == 2.0
    assert points.as_json()["exits"][0]["measure"] == "mae"


def test_a_regression_shows_rmse_and_the_name_of_its_value() -> None:
    values = np.array([[3.0, 4.0], [4.0, -4.0], [1.0, 0.0]], np.float32)[..., np.newaxis]
    source = {"class_names": ["people"]}
    points = tradeoff(outputs(outputs=values, labels=[0.0, 0.0], task="regression", source=source))
    assert [point.rmse for point in points] == pytest.approx([np.sqrt(12.5), 4.0, np.sqrt(0.5)])
    assert points.as_json()["exits"][1]["rmse"] == 4.0
    text = str(points)
    assert "MAE (people)" in text
    assert "RMSE (people)" in text
    assert "3.536" in text
    assert "often call MSE" in text
    classes = tradeoff(outputs())
    assert classes[0].rmse is None
    assert "RMSE" not in str(classes)


@given(st.permutations(range(11)), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_order_of_samples_does_not_change_the_tradeoff(order: list[int], seed: int) -> None:
    right = np.random.default_rng(seed).integers(0, 2, (3, 11))
    assert tradeoff(outputs(right[:, order])).points == tradeoff(outputs(right)).points


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_last_exit_costs_the_whole_backbone_and_intervals_contain_the_value(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = tradeoff(
        outputs(
            random.integers(0, 2, (3, 7)),
            stage_flops=random.integers(1, 99, 3),
            branch_flops=[*random.integers(0, 99, 2), 0],
        )
    )
    assert points[-1].acceleration == 1.0
    assert all(point.value in point.interval for point in points)


def test_repeated_ids_widen_the_interval() -> None:
    right = np.repeat(np.random.default_rng(0).integers(0, 2, (3, 40)), 10, axis=1)
    single = tradeoff(outputs(right))
    repeated = tradeoff(outputs(right, ids=np.repeat(np.arange(40), 10)))
    assert "Wilson" in single.method
    assert "400 samples in 40 independent units; intervals: Student" in repeated.method
    for one, other in zip(single, repeated, strict=True):
        assert other.interval.high - other.interval.low > 2 * (one.interval.high - one.interval.low)


def test_the_table_shows_milliseconds_only_if_measured() -> None:
    timed = outputs(stage_ms=[1, 2, 3], branch_ms=[0.5, 0.5, 0])
    assert [point.ms for point in tradeoff(timed)] == [1.5, 3.5, 6.0]
    assert [point.ms_with_passed for point in tradeoff(timed)] == [1.5, 4.0, 7.0]
    assert " ms" in str(tradeoff(timed))
    assert " ms" not in str(tradeoff(outputs()))


def test_the_table_prints_exactly_as_expected() -> None:
    assert str(tradeoff(outputs(names=("early", "late", "final")))).splitlines() == [
        "exit   accuracy %  95 % interval  FLOPs  with passed  acceleration",
        "-----  ----------  -------------  -----  -----------  ------------  -----------",
        "early        66.7   20.8 to 93.9      2            2         6.00x",
        "late         33.3    6.1 to 79.2      3            4         4.00x  impractical",
        "final       100.0  43.9 to 100.0     12           14         1.00x",
        "3 samples; intervals: Wilson.",
    ]


def test_json_includes_every_exit_even_one_without_cost() -> None:
    free = outputs(stage_flops=[0, 0, 10], branch_flops=[0, 1, 0])
    plain = json.loads(json.dumps(tradeoff(free).as_json(), allow_nan=False))
    assert plain["samples"] == 3
    assert [row["value"] for row in plain["exits"]] == [2 / 3, 1 / 3, 1.0]
    assert [row["acceleration"] for row in plain["exits"]] == [None, 10.0, 1.0]


def test_exits_that_are_always_right_still_get_an_interval_of_positive_width() -> None:
    ids = np.repeat(np.arange(20), 2)
    (point, *_) = tradeoff(outputs(np.ones((3, 40), int), ids=ids))
    assert point.interval.high == 1.0
    assert 0.7 < point.interval.low < 0.9


def test_the_acceleration_is_one_if_the_backbone_has_no_cost() -> None:
    points = tradeoff(outputs(stage_flops=[0, 0, 0], branch_flops=[0, 0, 0]))
    assert [point.acceleration for point in points] == [1.0, 1.0, 1.0]
    free = tradeoff(outputs(stage_flops=[0, 0, 10], branch_flops=[0, 1, 0]))
    assert "free" in str(free)
    assert "inf" not in str(free) + str(points)


def test_a_single_cluster_gives_the_widest_possible_interval() -> None:
    (point, *_) = tradeoff(outputs(clusters=[4, 4, 4]))
    assert (point.interval.low, point.interval.high) == (0.0, 1.0)
    value = outputs(
        outputs=np.ones((3, 3, 1)), labels=np.zeros(3), task="regression", ids=["a"] * 3
    )
    assert tradeoff(value).as_json()["exits"][0]["interval"] == [None, None]
