"""Answers by a deadline."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from offramp.bundle import Bundle, open_bundle
from offramp.errors import DeadlineError, PlanError
from offramp.policy import ExitPolicy, Promise, find_score
from offramp.runtime.deadline import Attempt, Workers
from offramp.runtime.engines import Stop
from offramp.runtime.pace import Pace
from offramp.runtime.path import Begun, Path
from offramp.runtime.runtime import Runtime

NAMES = ("one", "second", "final")
SLOW = 1e6
PROMISE = Promise(
    goal="max_drop", limit=0.02, confidence=0.95, method="ltt", num_samples=9, estimate=0.0
)


@pytest.fixture
def runtime(folder: File) -> Iterator[Runtime]:
    with Runtime(folder) as opened:
        yield opened


def sample() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(3, 9, 7)).astype(np.float32)


def at(*thresholds: float | None) -> ExitPolicy:
    return ExitPolicy(score=find_score("max_softmax"), names=NAMES, thresholds=thresholds)


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def begun(runtime: Runtime) -> Begun:
    return Begun(frozenset(), runtime.parts.live((sample()[None],)))


def attempted(
    runtime: Runtime, expected_ms: Mapping[str, float], left_ms: float, policy: ExitPolicy
) -> Attempt:
    """An attempt that has run, with times that the pace expects and a clock that stands still."""
    clock, stop = Hands(), Stop()
    path = Path(
        runtime.parts, runtime.facts, policy, begun(runtime), Pace(expected_ms), clock, stop
    )
    found = Attempt(path, left_ms / 1000, clock, stop)
    found.run()
    return found


def test_with_enough_time_the_policy_decides_and_nothing_is_interrupted(runtime: Runtime) -> None:
    for thresholds, exit in (((0.0, 0.0), "one"), ((None, 0.0), "second"), ((2.0, 2.0), "final")):
        wanted = runtime.run(sample(), at(*thresholds))
        found = runtime.run(sample(), at(*thresholds), deadline_ms=60_000)
        assert (found.exit, found.interrupted, wanted.exit) == (exit, False, exit)
        np.testing.assert_array_equal(found.outputs, wanted.outputs)


def test_a_stage_that_would_end_too_late_is_not_started(runtime: Runtime) -> None:
    found = attempted(runtime, {"stages/1.onnx": SLOW}, 100, at(2.0, 2.0))
    assert runtime.stage_runs == (1, 0, 0)
    assert found.reached is not None
    assert (found.reached.route.exit, found.reached.fired) == (0, False)


def test_a_disabled_exit_answers_where_it_is_the_last_in_time(runtime: Runtime) -> None:
    found = attempted(runtime, {"stages/2.onnx": SLOW}, 100, at(None, None))
    assert runtime.stage_runs == (1, 1, 0)
    assert found.reached is not None
    assert found.reached.route.exit == 1


def test_a_branch_that_the_policy_does_not_need_is_asked_if_the_last_exit_stays_in_reach(
    runtime: Runtime,
) -> None:
    branch = runtime.facts.exits[1].flops
    spent = []
    for expected in (40.0, 90.0):
        times = {"branches/1.onnx": expected, "stages/2.onnx": 50.0}
        found = attempted(runtime, times, 100, at(None, None))
        assert found.reached is not None
        assert found.reached.route.exit == 2
        spent.append(found.reached.flops)
    assert spent[0] - spent[1] == branch


def test_an_exit_whose_branch_was_slow_is_tried_again_after_some_refusals(
    runtime: Runtime,
) -> None:
    clock, pace = Hands(), Pace({"branches/0.onnx": 1.0})
    for _ in range(9):
        pace.add("branches/0.onnx", 500.0)
    workers, refused = Workers(), 0
    for _ in range(100):
        stop = Stop()
        path = Path(runtime.parts, runtime.facts, at(0.0, 0.0), begun(runtime), pace, clock, stop)
        try:
            found = workers.answer(Attempt(path, 0.1, clock, stop))
        except DeadlineError:
            refused += 1
        else:
            break
    workers.close()
    assert 10 <= refused < 100
    assert found.route.exit == 0


def test_a_deadline_that_no_exit_can_meet_names_what_the_first_one_needs(runtime: Runtime) -> None:
    runtime.warm_up()
    with pytest.raises(DeadlineError, match=r"the first exit, 'one', is expected to need .* ms"):
        runtime.run(sample(), deadline_ms=1e-4)
    assert runtime.stage_runs == (0, 0, 0)


@pytest.mark.parametrize("wrong", [0, -3.0, float("nan"), float("inf"), "5"])
def test_a_deadline_is_a_positive_number(runtime: Runtime, wrong: float) -> None:
    with pytest.raises(PlanError, match="must be a positive number of milliseconds"):
        runtime.run(sample(), deadline_ms=wrong)


def test_only_an_answer_of_the_policy_itself_is_promised(folder: File) -> None:
    with Runtime(folder) as runtime:
        policy = ExitPolicy(
            score=find_score("max_softmax"),
            names=NAMES,
            thresholds=(2.0, 2.0),
            promise=PROMISE,
            source=runtime.source(),
        )
        assert runtime.run(sample(), policy, deadline_ms=60_000).promised
        for answer in runtime.anytime(sample(), policy):
            assert answer.promised == (answer.exit == "final")


def test_answers_come_exit_by_exit_and_who_stops_asking_stops_the_work(runtime: Runtime) -> None:
    answers = runtime.anytime(sample())
    assert next(answers).exit == "one"
    assert runtime.stage_runs == (1, 0, 0)
    assert next(answers).exit == "second"
    answers.close()  # type: ignore[attr-defined]
    assert runtime.stage_runs == (1, 1, 0)
    assert [answer.exit for answer in runtime.anytime(sample())] == list(NAMES)


def test_several_threads_answer_by_deadlines_at_once(runtime: Runtime) -> None:
    inputs = np.random.default_rng(5).normal(size=(12, 3, 9, 7)).astype(np.float32)
    wanted = [runtime.run(each).outputs for each in inputs]
    found: dict[int, NDArray[np.float32]] = {}

    def answer(number: int) -> None:
        found[number] = runtime.run(inputs[number], deadline_ms=60_000).outputs

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, outputs in enumerate(wanted):
        np.testing.assert_allclose(found[number], outputs, atol=1e-6)


def slow_graph(inputs: Sequence[str]) -> bytes:
    """A last stage for one sample, of 80 nodes that take a second or so together."""
    draw = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(
        draw.normal(size=(800, 800)).astype(np.float32) / 28, "weight"
    )
    ones = onnx.numpy_helper.from_array(np.ones((1, 5), np.float32), "ones")
    nodes = [
        onnx.helper.make_node("ReduceMean", [inputs[0]], ["mean"], keepdims=0),
        onnx.helper.make_node("Mul", ["weight", "mean"], ["h0"]),
        *(onnx.helper.make_node("MatMul", [f"h{n}", "weight"], [f"h{n + 1}"]) for n in range(80)),
        onnx.helper.make_node("ReduceMean", ["h80"], ["all"], keepdims=0),
        onnx.helper.make_node("Mul", ["ones", "all"], ["outputs"]),
    ]
    kind = onnx.TensorProto.FLOAT
    given = [
        onnx.helper.make_tensor_value_info(name, kind, ["batch", None, None, None])
        for name in inputs
    ]
    gives = [onnx.helper.make_tensor_value_info("outputs", kind, [1, 5])]
    graph = onnx.helper.make_graph(nodes, "slow", given, gives, [weight, ones])
    opset = onnx.helper.make_opsetid("", 17)
    content: bytes = onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=9
    ).SerializeToString()
    return content


def with_slow_end(folder: File) -> Bundle:
    """The toy bundle with another last stage."""
    bundle = open_bundle(folder)
    [last] = [each for each in bundle.manifest.stages if each.stage == 2]
    slow = slow_graph(last.inputs)
    return replace(bundle, read=lambda file: slow if file == last.file else bundle.read(file))


def test_at_the_deadline_the_stage_that_runs_is_stopped_and_the_best_answer_leaves(
    folder: File,
) -> None:
    with Runtime(with_slow_end(folder), threads=1) as runtime:
        clock, stop = time.perf_counter, Stop()
        before = clock()
        runtime.run(sample())
        whole_s = clock() - before
        path = Path(
            runtime.parts, runtime.facts, at(None, None), begun(runtime), Pace({}), clock, stop
        )  # which expects that every stage is quick
        workers, started = Workers(), clock()
        found = workers.answer(Attempt(path, started + whole_s / 5, clock, stop))
        assert clock() - started < whole_s / 2
        assert (found.route.exit, found.fired) == (1, False)
        before = clock()
        workers.close()  # waits for the stage, which was stopped
        assert clock() - before < whole_s / 2
        assert runtime.stage_runs == (2, 2, 1)
