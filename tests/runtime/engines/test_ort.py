import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from offramp.errors import BundleError, PlanError, ShapeError
from offramp.runtime.engines import Engine, Stop, Stopped, open_engine, ort
from offramp.runtime.engines.libraries import onnx_runtime

Make = Callable[..., bytes]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = open_engine("onnxruntime", threads=1)
    yield engine
    engine.close()


def pictures(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, 4, 5, 5)).astype(np.float32)


def test_it_says_what_it_is(engine: Engine) -> None:
    name, version = engine.name.split()
    assert (name, engine.precision, engine.threads) == ("onnxruntime", "fp32", 1)
    assert int(version.split(".")[0]) >= 1


def test_names_stand_in_the_order_of_the_file(engine: Engine, difference: Make) -> None:
    graph = engine.load(difference())
    assert (graph.inputs, graph.outputs) == (("b", "a"), ("d",))
    b, a = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    (d,) = graph.run([b, a])
    np.testing.assert_array_equal(d, a - b)


def test_a_batch_has_any_size_and_rows_stay_apart(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions())
    x = pictures(7)
    whole, half = graph.run([engine.value(x)])
    rows = np.array([True, False, True, True, False, False, True])
    chosen, _ = graph.run([engine.value(engine.array(engine.value(x))[rows])])
    np.testing.assert_allclose(chosen, whole[rows], atol=1e-6)
    np.testing.assert_allclose(half, whole / 2)


def test_values_round_trip_whatever_their_layout(engine: Engine, convolutions: Make) -> None:
    x = pictures(3)
    last = np.moveaxis(x.copy(), 1, -1).copy()  # (3, 5, 5, 4), made channels first again below
    turned = np.moveaxis(last, -1, 1)
    np.testing.assert_array_equal(engine.array(engine.value(turned)), x)
    graph = engine.load(convolutions())
    np.testing.assert_array_equal(graph.run([turned])[0], graph.run([x])[0])


def test_results_stay_when_the_graph_runs_again_and_goes(
    engine: Engine, convolutions: Make
) -> None:
    graph = engine.load(convolutions())
    first, _ = graph.run([pictures(2)])
    kept = first.copy()
    graph.run([pictures(2, seed=1)])
    engine.close()
    engine.load(convolutions(seed=3)).run([pictures(2)])
    np.testing.assert_array_equal(first, kept)


def test_threads_share_one_graph(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions(num_layers=6))
    inputs = [pictures(1 + seed % 3, seed) for seed in range(24)]
    alone = [graph.run([x])[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: graph.run([x], Stop())[0], inputs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stop_before_the_run_stops_it(engine: Engine, convolutions: Make) -> None:
    stop = Stop()
    stop.request()
    graph = engine.load(convolutions())
    for _ in range(2):
        with pytest.raises(Stopped):
            graph.run([pictures(1)], stop)
    graph.run([pictures(1)], Stop())


def test_a_stop_during_the_run_ends_it_between_two_nodes(engine: Engine, products: Make) -> None:
    graph = engine.load(products(2000))
    stop = Stop()
    x = np.ones((1, 256, 256), np.float32)
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    with pytest.raises(Stopped):
        graph.run([x], stop)
    timer.join()


def test_two_runs_with_one_stop_both_end(engine: Engine, products: Make) -> None:
    graph = engine.load(products(2000))
    stop = Stop()
    x = np.ones((1, 256, 256), np.float32)
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(graph.run, [x], stop) for _ in range(2)]
    assert all(isinstance(run.exception(), Stopped) for run in runs)
    timer.join()


def test_a_stop_after_the_run_changes_nothing(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions())
    stop = Stop()
    y, _ = graph.run([pictures(1)], stop)
    stop.request()
    np.testing.assert_array_equal(y, graph.run([pictures(1)])[0])


def test_garbage_is_refused_by_name_and_quietly(
    engine: Engine, convolutions: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    for content in (b"", b"garbage", convolutions()[:-40]):
        with pytest.raises(BundleError, match=r"stages/1\.onnx is not an ONNX graph .* Export"):
            engine.load(content, "stages/1.onnx")
    assert capfd.readouterr() == ("", "")


def test_an_operator_it_does_not_know_is_named(engine: Engine, difference: Make) -> None:
    with pytest.raises(BundleError, match="Sux"):
        engine.load(difference().replace(b"Sub", b"Sux"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            [np.ones((2, 3, 5, 5), np.float32)],
            r"takes \(batch, 4, 5, 5\) float32 as .* 'x', but .*",
        ),
        ([np.ones((4, 5, 5), np.float32)], r"was given \(4, 5, 5\) float32"),
        ([np.ones((2, 4, 5, 5))], r"was given \(2, 4, 5, 5\) float64"),
        ([], r"takes 1 inputs \(x\), but was given 0 values"),
    ],
)
def test_a_wrong_value_is_told_with_what_the_graph_takes(
    engine: Engine,
    convolutions: Make,
    values: list[np.ndarray],
    told: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    graph = engine.load(convolutions(), "stages/0.onnx")
    for stop in (None, Stop()):
        with pytest.raises(ShapeError, match=told):
            graph.run(values, stop)
    assert capfd.readouterr() == ("", "")


def test_a_failure_inside_the_graph_quotes_the_library(engine: Engine, difference: Make) -> None:
    graph = engine.load(difference(), "branches/0.onnx")
    with pytest.raises(BundleError, match=r"failed to run branches/0\.onnx \(.*Sub"):
        graph.run([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)])


def test_nan_is_a_value_like_any_other(engine: Engine, difference: Make) -> None:
    b, a = np.full((1, 3), np.nan, np.float32), np.ones((1, 3), np.float32)
    assert np.isnan(engine.load(difference()).run([b, a])[0]).all()


def test_a_batch_can_be_fixed(convolutions: Make) -> None:
    engine = open_engine("onnxruntime", threads=1, batch=1)
    graph = engine.load(convolutions())
    graph.run([pictures(1)])
    with pytest.raises(ShapeError, match=r"takes \(1, 4, 5, 5\)"):
        graph.run([pictures(2)])


def test_a_closed_graph_says_so(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions(), "stages/2.onnx")
    engine.close()
    engine.close()
    with pytest.raises(BundleError, match=r"stages/2\.onnx was closed"):
        graph.run([pictures(1)])


def test_bf16_is_refused_with_the_reason() -> None:
    with pytest.raises(PlanError, match=r"fp32 only.*engine='openvino'"):
        open_engine("onnxruntime", "bf16")


@pytest.mark.parametrize("device", ["cuda", "coreml"])
def test_a_device_that_the_library_lacks_is_refused_with_what_it_has(device: str) -> None:
    with pytest.raises(PlanError, match=r"ExecutionProvider; it runs on: cpu\. Install"):
        open_engine(f"onnxruntime:{device}")


def test_values_that_stay_on_a_device_pass_between_graphs(
    engine: Engine, convolutions: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of CUDA, with the CPU as the device."""
    monkeypatch.setattr(ort._BoundGraph, "_place", "cpu")
    content = convolutions()
    library = onnx_runtime()
    plain = engine.load(content)
    bound = ort._BoundGraph(library, library.InferenceSession(content), "stages/0.onnx")
    x = library.OrtValue.ortvalue_from_numpy(pictures(2))
    y, _ = bound.run(bound.run([x])[:1], Stop())
    expected, _ = plain.run(plain.run([pictures(2)])[:1])
    np.testing.assert_array_equal(engine.array(y), expected)
    with pytest.raises(ShapeError, match="was given"):
        bound.run([library.OrtValue.ortvalue_from_numpy(pictures(2)[0])])
