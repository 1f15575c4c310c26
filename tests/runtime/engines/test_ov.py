"""OpenVINO reads the same graphs and answers as ONNX Runtime does."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from offramp.errors import BundleError, PlanError, ShapeError
from offramp.runtime.engines import Engine, Stop, Stopped, open_engine
from offramp.runtime.engines.libraries import openvino

Make = Callable[..., bytes]


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = open_engine("openvino", threads=1)
    yield engine
    engine.close()


def pictures(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, 4, 5, 5)).astype(np.float32)


def test_it_says_what_it_is(engine: Engine) -> None:
    assert engine.name.split()[0] == "openvino"
    assert (engine.precision, engine.threads) == ("fp32", 1)


def test_it_answers_as_onnx_runtime_does_for_any_batch(
    engine: Engine, convolutions: Make, difference: Make
) -> None:
    other = open_engine("onnxruntime", threads=1)
    ours, theirs = engine.load(convolutions()), other.load(convolutions())
    assert (ours.inputs, ours.outputs) == (theirs.inputs, theirs.outputs)
    for num in (1, 3, 32):
        for one, wanted in zip(ours.run([pictures(num)]), theirs.run([pictures(num)]), strict=True):
            np.testing.assert_allclose(one, wanted, atol=1e-5)
    assert engine.load(difference()).inputs == ("b", "a")


def test_results_stay_when_the_graph_runs_again(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions())
    first, _ = graph.run([pictures(2)])
    kept = first.copy()
    graph.run([pictures(2, seed=1)])
    np.testing.assert_array_equal(first, kept)


def test_threads_share_one_graph(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions(num_layers=6))
    inputs = [pictures(1 + seed % 3, seed) for seed in range(24)]
    alone = [graph.run([x])[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: graph.run([x], Stop())[0], inputs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_stop_before_the_run_stops_it(engine: Engine, convolutions: Make) -> None:
    stop = Stop()
    stop.request()
    graph = engine.load(convolutions())
    with pytest.raises(Stopped):
        graph.run([pictures(1)], stop)
    graph.run([pictures(1)], Stop())


def test_a_stop_during_the_run_ends_it_or_comes_too_late(engine: Engine, products: Make) -> None:
    graph = engine.load(products(400))
    stop = Stop()
    x = np.ones((1, 256, 256), np.float32)
    expected = graph.run([x])
    timer = threading.Timer(0.02, stop.request)
    timer.start()
    with contextlib.suppress(Stopped):
        np.testing.assert_allclose(graph.run([x], stop)[0], expected[0], atol=1e-5)
    timer.join()
    np.testing.assert_allclose(graph.run([x])[0], expected[0], atol=1e-5)


def test_garbage_is_refused_by_name_and_quietly(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    for content in (b"", b"garbage"):
        with pytest.raises(BundleError, match=r"stages/1\.onnx is not an ONNX graph .* Export"):
            engine.load(content, "stages/1.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_wrong_value_is_told_with_what_the_graph_takes(
    engine: Engine, convolutions: Make
) -> None:
    graph = engine.load(convolutions(), "stages/0.onnx")
    with pytest.raises(ShapeError, match=r"takes \(any, 4, 5, 5\) float32 as its input 'x'"):
        graph.run([np.ones((2, 3, 5, 5), np.float32)])


def test_a_closed_graph_says_so(engine: Engine, convolutions: Make) -> None:
    graph = engine.load(convolutions(), "stages/2.onnx")
    engine.close()
    with pytest.raises(BundleError, match=r"stages/2\.onnx was closed"):
        graph.run([pictures(1)])


def has_bf16() -> bool:
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_bf16_is_refused_where_the_processor_lacks_it() -> None:
    if has_bf16():
        pytest.skip("this processor has bf16")
    with pytest.raises(PlanError, match="needs a processor with bf16 instructions"):
        open_engine("openvino", "bf16")


def test_bf16_rounds_more_than_fp32(convolutions: Make) -> None:
    if not has_bf16():
        pytest.skip("this processor has no bf16")
    engines = [open_engine("openvino", name, threads=1) for name in ("bf16", "fp32")]
    assert [engine.precision for engine in engines] == ["bf16", "fp32"]
    found, exact = (each.load(convolutions()).run([pictures(2)])[0] for each in engines)
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()
