import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.errors import BundleError, OfframpError, PlanError, ShapeError
from offramp.outputs import ExitOutputs, independent_units
from offramp.storage.archive import read_arrays, write_arrays

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of
EXITS, SAMPLES, CLASSES = 3, 7, 5


def settings(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "outputs": random.normal(size=(EXITS, SAMPLES, CLASSES)).astype(np.float32),
        "labels": random.integers(0, CLASSES, SAMPLES),
        "stage_flops": np.array([10, 20, 40]),
        "branch_flops": np.array([3, 2, 0]),
        **changes,
    }


def full(**changes: Any) -> ExitOutputs:
    random = np.random.default_rng(1)
    given: dict[str, Any] = {
        "names": ("early", "läte", "final"),
        "stage_ms": [1.0, 2.0, 4.0],
        "branch_ms": [0.5, 0.25, 0.0],
        "scores": random.random((EXITS, SAMPLES)),
        "ids": [f"image {index // 2}" for index in range(SAMPLES)],
        "groups": np.arange(SAMPLES) % 2,
        "clusters": [f"track {index // 3}" for index in range(SAMPLES)],
        "source": {"engine": "torch", "split": "test", "sizes": [1, 2]},
    }
    return ExitOutputs(**settings(**(given | changes)))


def regression(**changes: Any) -> ExitOutputs:
    outputs = np.arange(6, dtype=np.float32).reshape(3, 2, 1)
    return ExitOutputs(**settings(outputs=outputs, labels=[1.5, 2], task="regression", **changes))


@pytest.mark.parametrize("make", [full, regression, lambda: ExitOutputs(**settings())])
def test_outputs_come_back_bit_for_bit(tmp_path: Path, make: Any) -> None:
    outputs: ExitOutputs = make()
    outputs.save(tmp_path / "a" / "test.npz")
    back = ExitOutputs.load(tmp_path / "a" / "test.npz")
    for name, value in vars(outputs).items():
        again = getattr(back, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(again, value, strict=True)
        else:
            assert again == value


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        full().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_file_whose_values_disagree_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    full().save(path)
    names = [name for name in vars(full()) if name not in ("task", "source")]
    arrays = read_arrays(path, "offramp exit outputs 1", [*names, "task", "source"])
    for name, wrong in (("labels", arrays["labels"][1:]), ("source", np.array("{"))):
        write_arrays(path, "offramp exit outputs 1", arrays | {name: wrong})
        with pytest.raises(BundleError, match=r"test\.npz holds values that disagree"):
            ExitOutputs.load(path)


def test_predictions_and_right_answers_by_hand() -> None:
    logits = np.array([[[0, 2, 1], [3, 0, 0]], [[0, 1, 2], [3, 0, 0]]], np.float32)
    outputs = any_outputs(outputs=logits, labels=[2, 0], stage_flops=[1, 1], branch_flops=[1, 0])
    assert outputs.predictions.tolist() == [[1, 0], [2, 0]]
    assert outputs.correct.tolist() == [[False, True], [True, True]]
    assert outputs.names == ("exit 0", "final")


def test_a_regression_predicts_values_and_has_no_right_answers() -> None:
    outputs = regression()
    assert outputs.predictions.tolist() == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(OfframpError, match="regression"):
        _ = outputs.correct


def test_costs_by_hand_in_both_units() -> None:
    outputs = full()
    assert outputs.own_path_cost().tolist() == [13, 32, 70]
    assert outputs.with_passed_cost().tolist() == [13, 35, 75]
    assert outputs.own_path_cost("ms").tolist() == [1.5, 3.25, 7.0]
    assert outputs.with_passed_cost("ms").tolist() == [1.5, 3.75, 7.75]


def test_unmeasured_milliseconds_are_an_error() -> None:
    with pytest.raises(OfframpError, match="no measured milliseconds"):
        ExitOutputs(**settings()).own_path_cost("ms")


def test_the_values_are_copies_that_cannot_change() -> None:
    given = settings()
    outputs = ExitOutputs(**given)
    before = outputs.outputs.copy()
    given["outputs"][:] = 0
    np.testing.assert_array_equal(outputs.outputs, before)
    with pytest.raises(ValueError, match="read-only"):
        outputs.outputs[0] = 0


NAN = np.full((EXITS, SAMPLES, CLASSES), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": NAN}, r"outputs has 105 values that are NaN or infinite, .*\(0, 0, 0\)"),
        ({"outputs": np.full((3, 7, 5), 1e39)}, "NaN or infinite"),
        (
            {"outputs": np.zeros((0, 7, 5))},
            r"shape \(exits, samples, K\), with no axis of length 0",
        ),
        ({"outputs": np.zeros((3, 0, 5))}, "with no axis of length 0"),
        ({"outputs": np.zeros((3, 7))}, r"got float64 \(3, 7\)"),
        ({"outputs": np.full((3, 7, 5), "a")}, "must be numbers"),
        ({"labels": np.zeros(6, int)}, r"labels must have shape \(7,\).*got \(6,\)"),
        ({"labels": [0, 1, 2, 3, 4, 5, 0]}, "sample 5 is labelled 5 .1 such"),
        ({"labels": [0, 1, 2, 3, 4, -1, 0]}, "sample 5 is labelled -1"),
        ({"labels": np.zeros(7)}, "float64 labels. Set task='regression'"),
        ({"outputs": np.zeros((3, 7, 1))}, "at least 2 outputs"),
        ({"task": "regression"}, "a regression has one output"),
        ({"branch_flops": [3, 2, 1]}, r"branch_flops\[-1\] is 1"),
        ({"branch_flops": [3, -2, 0]}, "branch_flops must be whole numbers, 0 or larger"),
        ({"stage_flops": [1, 2, 3.5]}, "stage_flops must be whole numbers, 0 or larger"),
        ({"stage_flops": [1, 2]}, r"stage_flops must have shape \(3,\)"),
        ({"stage_ms": [1.0, 2.0, 3.0]}, "give both, or neither"),
        ({"stage_ms": [1.0, 2.0, -3.0], "branch_ms": [0, 0, 0]}, "stage_ms must not be negative"),
        ({"names": ("a", "b", "a")}, "3 different names"),
        ({"names": ("a", "b")}, "3 different names"),
        ({"scores": np.zeros((3, 6))}, r"scores must have shape \(3, 7\)"),
        ({"scores": np.full((3, 7), np.inf)}, "scores has 21 values"),
        ({"ids": ["a"]}, r"ids must have shape \(7,\)"),
        ({"groups": ["a"]}, r"groups must have shape \(7,\)"),
        ({"groups": [1]}, r"groups must have shape \(7,\)"),
        ({"source": {"path": Path()}}, "source must hold JSON values"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        ExitOutputs(**settings(**changes))


def test_one_exit_and_one_sample_are_enough() -> None:
    outputs = any_outputs(
        outputs=np.zeros((1, 1, 2)), labels=[0], stage_flops=[1], branch_flops=[0]
    )
    assert outputs.names == ("final",)
    assert outputs.outputs.dtype == np.float32


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (
            [(5, 2), (4, 2)],
            "exit 0 has 5 samples x 2 K, exit 1 has 4 samples x 2 K.*Give all exits",
        ),
        ([(5, 2), (5, 2), (5, 3)], "exit 0 has 5 samples x 2 K, exit 2 has 5 samples x 3 K"),
        ([(5, 2), (5,)], r"exit 1 has shape \(5,\)"),
    ],
)
def test_exits_that_do_not_fit_together_are_named(shapes: list[Any], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        ExitOutputs(**settings(outputs=[np.zeros(shape) for shape in shapes]))


def test_an_exit_with_rows_of_different_lengths_is_named() -> None:
    with pytest.raises(ShapeError, match="exit 1 has rows of different lengths"):
        ExitOutputs(**settings(outputs=[[[1.0, 2.0]], [[1.0, 2.0], [1.0]]]))


@pytest.mark.parametrize("ask", ["costs", "own_path_cost", "with_passed_cost"])
def test_a_cost_in_another_unit_is_refused(ask: str) -> None:
    with pytest.raises(PlanError, match=r"'seconds'.*'flops' or 'ms'"):
        getattr(full(), ask)("seconds")


@pytest.mark.parametrize(
    ("names", "units"),
    [
        ({}, None),
        ({"ids": list("abcdefg")}, None),
        ({"ids": list("abacdca")}, [0, 1, 0, 2, 3, 2, 0]),
        ({"clusters": [5, 5, 5, 2, 2, 9, 9]}, [1, 1, 1, 0, 0, 2, 2]),
        # One id in two clusters makes a unit of both, and so does a chain of such.
        ({"clusters": [1, 1, 2, 2, 3, 3, 4], "ids": list("abbccde")}, [0, 0, 0, 0, 0, 0, 1]),
        ({"clusters": [4, 3, 2, 1, 0, 0, 5], "ids": list("aabbcde")}, [2, 2, 1, 1, 0, 0, 3]),
    ],
)
def test_samples_that_share_an_id_or_a_cluster_are_one_unit(names: Any, units: Any) -> None:
    found = ExitOutputs(**settings(**names)).units
    assert (found if found is None else found.tolist()) == units


def test_the_order_of_samples_does_not_change_their_units() -> None:
    random = np.random.default_rng(3)
    ids, clusters, order = (
        random.integers(0, 30, 41),
        random.integers(0, 25, 41),
        random.permutation(41),
    )
    units, mixed = independent_units(ids, clusters), independent_units(ids[order], clusters[order])
    assert units is not None
    assert mixed is not None
    np.testing.assert_array_equal(mixed, units[order])


def test_outputs_take_little_more_memory_than_one_copy() -> None:
    given = settings(outputs=np.zeros((3, 7000, 101), np.float32), labels=np.zeros(7000, int))
    tracemalloc.start()
    outputs = ExitOutputs(**given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.15 * outputs.outputs.nbytes
