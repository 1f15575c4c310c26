import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from offramp.calibration import calibrate
from offramp.errors import ArgumentError, DataError, OfframpError, PlanError, ShapeError
from offramp.machine import processor_name
from offramp.multiexit.model import MultiExit
from offramp.outputs import ExitOutputs
from offramp.policy import PromiseWarning
from offramp.runtime.collecting import exit_times
from offramp.runtime.measuring import measured_times, times_here
from offramp.runtime.runtime import Runtime

pytestmark = pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")

COUNT = 23
LABELS = np.arange(COUNT) % 5


def drawn(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(COUNT, *shape)).astype(np.float32)


PICTURES, SOUNDS = drawn(3, 9, 7), drawn(1, 19, 33, seed=4)


class Listed:
    """A data set with names, one of which occurs twice."""

    ids = tuple(f"film{place % 22}" for place in range(COUNT))
    groups = LABELS % 2
    clusters = np.arange(COUNT) // 2

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, row: int) -> Any:
        return torch.from_numpy(PICTURES[row]), torch.tensor(LABELS[row])


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(folder) as opened:
        yield opened


@pytest.fixture
def listener(hearing_folder: Path) -> Iterator[Runtime]:
    with Runtime(hearing_folder) as opened:
        yield opened


def assert_same(found: ExitOutputs, wanted: ExitOutputs) -> None:
    assert_allclose(found.outputs, wanted.outputs, atol=1e-4)
    for name in ("labels", "stage_flops", "branch_flops", "names", "ids", "groups", "clusters"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    assert found.task == wanted.task
    assert (found.scores is None) == (wanted.scores is None)
    if found.scores is not None and wanted.scores is not None:
        assert_allclose(found.scores, wanted.scores, atol=1e-4)
    mine, theirs = dict(found.source or {}), dict(wanted.source or {})
    for name in ("engine", "data"):
        assert mine.pop(name)
        theirs.pop(name)
    assert mine == theirs


@pytest.mark.parametrize("data", [(PICTURES, LABELS), Listed()], ids=["arrays", "data set"])
def test_answers_and_costs_are_those_of_the_model_with_torch(
    data: Any, model: MultiExit, runtime: Runtime
) -> None:
    calls: list[tuple[str, int, int]] = []
    found = runtime.collect(
        data, split="test", batch_size=9, progress=lambda *call: calls.append(call)
    )
    assert_same(found, model.collect(data, split="test"))
    assert (found.source or {})["engine"].startswith("onnxruntime ")
    assert calls == [("answers on test", done, COUNT) for done in (9, 18, COUNT)]


@pytest.mark.slow
def test_two_inputs_and_error_predictors_answer_with_and_without_sound(
    hearing: MultiExit, listener: Runtime
) -> None:
    pair = (PICTURES, SOUNDS), LABELS
    assert_same(listener.collect(pair, batch_size=7), hearing.collect(pair))
    quiet = listener.collect(pair, without="sound")
    assert_same(quiet, hearing.collect(pair, without="sound"))
    assert quiet.names == ("V1", "AV1", "V2")
    assert quiet.stage_ms is None
    assert (quiet.source or {})["without"] == ["sound"]


@pytest.mark.slow
def test_samples_that_lack_what_an_exit_needs_are_refused_by_name(listener: Runtime) -> None:
    some = [((PICTURES[row], SOUNDS[row] if row != 4 else None), 1) for row in range(6)]
    with pytest.raises(DataError, match=r"sample 4 lacks input 1 \('sound'\): 'final' cannot"):
        listener.collect(some)
    assert listener.collect(some, without=1, batch_size=4).outputs.shape == (3, 6, 5)
    with pytest.raises(DataError, match="'V1', 'AV1', 'V2', 'final' cannot answer without input 0"):
        listener.collect(some, without="picture")


def test_times_of_the_bundle_are_joined_from_exit_to_exit(runtime: Runtime) -> None:
    manifest = runtime.bundle.manifest
    [times] = manifest.times
    ms = {each.file: each.median_ms for each in times.parts}
    stages, branches = exit_times(manifest, times, ("second", "final"))
    assert_allclose(stages, [ms["stages/0.onnx"] + ms["stages/1.onnx"], ms["stages/2.onnx"]])
    assert_allclose(branches, [ms["branches/1.onnx"], 0])
    found = runtime.collect((PICTURES, LABELS))
    assert found.stage_ms is not None
    assert_allclose(found.stage_ms, [ms[f"stages/{stage}.onnx"] for stage in range(3)])


def test_times_of_another_machine_or_engine_are_left_out(folder: Path, runtime: Runtime) -> None:
    [times] = runtime.bundle.manifest.times
    assert (times.processor, times.cores) == (processor_name(), os.cpu_count())
    engine = runtime.parts.engine
    changes: tuple[dict[str, Any], ...] = ({"processor": "Z80"}, {"engine": "openvino 2026"})
    for change in ({"cores": times.cores + 1}, {"threads": times.threads + 1}, *changes):
        assert times_here([times.model_copy(update=change)], engine) is None
    assert times_here([times], engine) == times
    other = runtime.bundle.manifest.model_copy(
        update={"times": (times.model_copy(update={"processor": "Z80"}),)}
    )
    with Runtime(replace(runtime.bundle, manifest=other)) as moved:
        assert moved.collect((PICTURES, LABELS)).stage_ms is None
        own = measured_times(moved.bundle, moved.parts, repeats=2)
        assert moved.collect((PICTURES, LABELS), timings=own).stage_ms is not None
        with pytest.raises(PlanError, match="timings are measured with all inputs"):
            moved.collect((PICTURES, LABELS), timings=own, without=0)


def test_the_hash_of_the_data_follows_samples_labels_and_names(runtime: Runtime) -> None:
    class Renamed(Listed):
        ids = tuple(f"clip{place}" for place in range(COUNT))

    def key(data: Any) -> str:
        source = runtime.collect(data, batch_size=COUNT).source or {}
        return str(source["data"])

    changed = PICTURES.copy()
    changed[5, 0, 0, 0] += 1
    given = (PICTURES, LABELS), (changed, LABELS), (PICTURES, LABELS[::-1]), Listed(), Renamed()
    assert len({key(each) for each in given}) == len(given)
    assert key((PICTURES, LABELS)) == key((PICTURES, LABELS))


def test_files_and_pixels_are_prepared_as_for_an_answer(runtime: Runtime) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 11, 8, 3), np.uint8)
    found = runtime.collect([(each, 2) for each in pixels])
    for place, each in enumerate(pixels):
        assert_allclose(found.outputs[-1, place], runtime.run(each).outputs, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ([], DataError, "the data set is empty"),
        ({"inputs": 1}, DataError, "needs len"),
        (iter([]), DataError, "needs len"),
        ([3], DataError, "sample 0 is a int, not a pair"),
        ([(PICTURES[0], "cat")], DataError, "label 0 is 'cat'"),
        ([(PICTURES[0], 5)], DataError, "labels run from 5 to 5, but the model has 5 outputs"),
        ([(PICTURES[0], 1), (PICTURES[0][:2], 1)], ShapeError, "sample 1: the input has shape"),
        ([(PICTURES[0], 1), ("none.png", 1)], DataError, "sample 1: none.png cannot be read"),
        ((PICTURES, LABELS[:4]), ShapeError, "23 inputs and 4 labels"),
    ],
)
def test_wrong_data_is_one_clear_error(
    data: Any, error: type[OfframpError], says: str, runtime: Runtime
) -> None:
    with pytest.raises(error, match=says):
        runtime.collect(data)


def test_wrong_arguments_are_one_clear_error(runtime: Runtime) -> None:
    with pytest.raises(PlanError, match="batch_size is 0"):
        runtime.collect((PICTURES, LABELS), batch_size=0)
    with pytest.raises(PlanError, match="no input 'sound'"):
        runtime.collect((PICTURES, LABELS), without="sound")
    with pytest.raises(ArgumentError, match="split is 3"):
        runtime.collect((PICTURES, LABELS), split=3)  # type: ignore[arg-type]


def test_a_promise_made_on_the_answers_of_an_engine_holds_there_only(runtime: Runtime) -> None:
    rows = runtime.collect((drawn(3, 9, 7), LABELS), split="calibration")
    policy = calibrate(
        replace(rows, outputs=np.repeat(rows.outputs[-1:], 3, axis=0)),
        max_disagreement=0.3,
        confidence=0.6,
    )
    assert runtime.run(PICTURES[0], policy).promised
    elsewhere = replace(policy, source={**(policy.source or {}), "engine": "torch 2.9"})
    with pytest.warns(PromiseWarning, match=r"engine is onnxruntime .*, certified for torch 2\.9"):
        assert not runtime.run(PICTURES[0], elsewhere).promised
