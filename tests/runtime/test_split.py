import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from offramp.answer import Answer
from offramp.bundle import open_bundle
from offramp.errors import BundleError, CutError, DataError, OfframpError, PlanError, ShapeError
from offramp.policy import ExitPolicy, find_score
from offramp.runtime.encoding import ENCODINGS, Encoding
from offramp.runtime.payload import payload_bytes
from offramp.runtime.runtime import Runtime
from offramp.runtime.split import split_outputs

SHAPE, NAMES = (3, 9, 7), ("one", "second", "final")
CUTS = NAMES[:2]
ALWAYS, NEVER = (0.0, 0.0), (None, None)


def samples(count: int = 13) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, *SHAPE)).astype(np.float32)


def policy(
    first: float | None, second: float | None, score: str = "max_softmax", **more: Any
) -> ExitPolicy:
    return ExitPolicy(score=find_score(score), names=NAMES, thresholds=(first, second), **more)


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(folder) as opened:
        yield opened


def timeless(answer: Answer) -> dict[str, Any]:
    values: dict[str, Any] = answer.as_json()
    return {name: value for name, value in values.items() if not name.endswith("_ms")}


def splitting(runtime: Runtime, score: str) -> ExitPolicy:
    """A policy that lets samples leave at each exit."""
    if score == "patience":
        return policy(None, 1.0, score)
    scores = find_score(score).of(runtime.collect((samples(61), np.arange(61) % 5)))
    first, second = (float(np.quantile(each, 0.63)) for each in scores)
    return policy(first, second, score)


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")
@pytest.mark.parametrize("score", ["max_softmax", "entropy", "patience"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_split_run_answers_with_the_same_bits_as_an_unsplit_one(
    runtime: Runtime, folder: Path, cut: str, score: str
) -> None:
    rule = splitting(runtime, score)
    exits = set()
    with Runtime(folder) as elsewhere:
        for sample in samples(61):
            for each in (None, rule):
                wanted = runtime.run(sample, each)
                payload = runtime.run_until(sample, cut, each)
                found = elsewhere.resume(payload, each)
                assert found.outputs.tobytes() == wanted.outputs.tobytes()
                assert timeless(found) == timeless(wanted)
                assert len(found.stage_ms) == len(wanted.stage_ms)
                exits.add(found.exit)
    assert len(exits) >= 2


def test_each_stage_runs_on_one_machine_only(runtime: Runtime, folder: Path) -> None:
    with Runtime(folder) as elsewhere:
        elsewhere.resume(runtime.run_until(samples()[0], "one"))
        assert (runtime.stage_runs, elsewhere.stage_runs) == ((1, 0, 0), (0, 1, 1))


def test_nothing_is_left_to_send_where_an_exit_before_the_cut_is_sure(runtime: Runtime) -> None:
    found = runtime.answer_or_payload(samples()[0], "second", policy(*ALWAYS))
    assert isinstance(found, Answer)
    assert (found.exit, runtime.stage_runs) == ("one", (1, 0, 0))
    payload = runtime.run_until(samples()[0], "second", policy(*ALWAYS))
    assert "live:" not in str(payload)
    assert timeless(runtime.resume(payload, policy(*ALWAYS))) == timeless(found)
    assert isinstance(runtime.answer_or_payload(samples()[0], "second", policy(*NEVER)), bytes)
    with pytest.raises(PlanError, match="was sure enough for the policy of run_until"):
        runtime.resume(payload, policy(*NEVER))


def test_another_policy_decides_from_the_answers_before_the_cut(runtime: Runtime) -> None:
    payload = runtime.run_until(samples()[0], "second", policy(2.0, 2.0))
    assert runtime.resume(payload, policy(0.0, None)).exit == "one"
    assert runtime.resume(payload, policy(None, 0.0)).exit == "second"
    assert runtime.stage_runs == (1, 1, 0)
    assert runtime.resume(payload, policy(*NEVER)).exit == "final"


def test_an_exit_that_was_not_asked_before_the_cut_does_not_answer(runtime: Runtime) -> None:
    payload = runtime.run_until(samples()[0], "second", policy(*NEVER))
    found = runtime.resume(payload, policy(*ALWAYS))
    assert (found.exit, found.promised) == ("second", False)
    with pytest.raises(PlanError, match=r"reads the answer of 'one'.*same policy"):
        runtime.resume(payload, policy(2.0, 2.0, "patience"))


def test_the_size_is_known_before_anything_runs(runtime: Runtime, folder: Path) -> None:
    bundle = open_bundle(folder)
    cells = {"one": 6 * 9 * 7, "second": 6 * 9 * 7 * 2}  # x and, inside the residual block, x again
    for cut in CUTS:
        sizes = [payload_bytes(bundle, cut, encoding) for encoding in ENCODINGS]
        assert sizes[1] == sizes[0] / 2
        assert sizes[2] < sizes[0] / 3
        assert sizes[0] in (4 * cells["one"], 4 * cells[cut])
        for encoding, size in zip(ENCODINGS, sizes, strict=True):
            payload = runtime.run_until(samples()[0], cut, encoding=encoding)
            assert 0 < len(payload) - size < 1200


@pytest.mark.filterwarnings("ignore::offramp.doubts.DoubtWarning")
@pytest.mark.parametrize(("encoding", "error"), [("fp32", 0.0), ("fp16", 2e-3), ("int8", 2e-2)])
def test_the_loss_of_an_encoding_is_measured_on_data(
    runtime: Runtime, encoding: Encoding, error: float
) -> None:
    data = samples(), np.arange(13) % 5
    whole, split = runtime.collect(data), split_outputs(runtime, data, "one", encoding)
    np.testing.assert_array_equal(split.outputs[0], whole.outputs[0])
    scale = np.abs(whole.outputs[1:]).max()
    found = np.abs(split.outputs[1:] - whole.outputs[1:]).max() / scale
    assert found <= error
    assert (found > 0) == (encoding != "fp32")
    single = [runtime.resume(runtime.run_until(each, "one", encoding=encoding)) for each in data[0]]
    np.testing.assert_allclose([each.outputs for each in single], split.outputs[-1], atol=1e-5)
    assert (whole.source == split.source) == (encoding == "fp32")


def test_a_promise_holds_only_for_what_was_sent_in_fp32(runtime: Runtime, folder: Path) -> None:
    for encoding in ENCODINGS:
        payload = runtime.run_until(samples()[0], "one", encoding=encoding)
        assert not runtime.resume(payload).promised  # there is no promise to keep


def test_unknown_cuts_and_encodings_are_refused(runtime: Runtime) -> None:
    with pytest.raises(CutError, match=r"no cut 'final'.*one, second"):
        runtime.run_until(samples()[0], "final")
    with pytest.raises(PlanError, match=r"no encoding 'int4'.*fp32, fp16, int8"):
        runtime.run_until(samples()[0], "one", encoding="int4")  # type: ignore[arg-type]
    assert runtime.stage_runs == (0, 0, 0)


def changed(payload: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """A payload with other tensors or other facts."""
    length = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + length])["__metadata__"]
    facts, tensors = json.loads(header["facts"]), dict(safetensors.numpy.load(payload))
    change(facts, tensors)
    header["facts"] = json.dumps(facts)
    if "schema" in facts:
        header["schema"] = facts["schema"]
    return safetensors.numpy.save(tensors, header)


def first_live(tensors: dict[str, Any]) -> str:
    return next(name for name in tensors if name.startswith("live:"))


def renamed(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["live:other"] = tensors.pop(first_live(tensors))


def added(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["live:more"] = np.zeros(3, np.float32)


def reshaped(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors[first_live(tensors)] = tensors[first_live(tensors)].transpose(0, 1, 3, 2).copy()


def retyped(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors[first_live(tensors)] = tensors[first_live(tensors)].astype(np.float64)


def not_a_number(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    values = tensors[first_live(tensors)].copy()
    values.flat[5] = np.nan
    tensors[first_live(tensors)] = values


def infinite_answer(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["answers"] = np.full_like(tensors["answers"], np.inf)


def with_fact(name: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
        facts[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (renamed, ShapeError, "lacks the tensors.*and has others.*live:other"),
        (added, ShapeError, r"lacks the tensors \[\] and has others.*live:more"),
        (reshaped, ShapeError, r"is \[1, 6, 7, 9\] float32, and this bundle reads \(1, 6, 9, 7\)"),
        (retyped, ShapeError, "float64, and this bundle reads"),
        (not_a_number, DataError, "numbers that are not finite"),
        (infinite_answer, DataError, "answers of earlier exits in the payload are not finite"),
        (with_fact("model", "f" * 64), BundleError, "with the model 'ffffffffffff'"),
        (with_fact("schema", "offramp payload 2"), DataError, "says 'offramp payload 2'"),
        (with_fact("cut", "nowhere"), DataError, "cut 'nowhere', and this bundle has one, second"),
        (with_fact("cut", "second"), DataError, "times of 1 stages, and 2 must have run"),
        (with_fact("encoding", "fp16"), ShapeError, "reads.*float16"),
        (with_fact("encoding", "zip"), DataError, "what it says of itself cannot be read"),
        (with_fact("stage_ms", ["NaN"]), DataError, "what it says of itself cannot be read"),
        (with_fact("asked", ["second"]), DataError, "cannot have been asked up to 'one'"),
        (with_fact("asked", []), ShapeError, "has others.*answers"),
        (with_fact("absent", ["sound"]), DataError, "no inputs"),
        (with_fact("extra", 1), DataError, "no such setting"),
    ],
)
def test_a_payload_that_was_changed_on_the_way_is_refused(
    runtime: Runtime, change: Any, error: type[OfframpError], text: str
) -> None:
    payload = runtime.run_until(samples()[0], "one", policy(2.0, 2.0))
    runtime.resume(changed(payload, lambda facts, tensors: None), policy(2.0, 2.0))
    with pytest.raises(error, match=text):
        runtime.resume(changed(payload, change), policy(2.0, 2.0))


def test_bytes_that_are_no_payload_are_refused(runtime: Runtime) -> None:
    payload = runtime.run_until(samples()[0], "one")
    for size in (0, 5, 8, 300, len(payload) // 2, len(payload) - 1):
        with pytest.raises(DataError, match="the payload is damaged"):
            runtime.resume(payload[:size])
    for content in (payload + b"\0", b"\x05" + bytes(7) + b"[1,2]" + payload, os.urandom(999)):
        with pytest.raises(DataError, match=r"damaged|at most"):
            runtime.resume(content)
    with pytest.raises(DataError, match="the most that is read"):
        runtime.resume((2**21).to_bytes(8, "little") + bytes(2**21))
    with pytest.raises(
        DataError, match=r"MB, and one at the cut 'one' in fp32 has 1.05 MB at most"
    ):
        runtime.resume(payload + bytes(2**21))
    with pytest.raises(OfframpError, match="payload is"):
        runtime.resume("payload")  # type: ignore[arg-type]


def test_random_damage_never_ends_in_another_error(runtime: Runtime) -> None:
    payload = runtime.run_until(samples()[0], "one", policy(2.0, 2.0))
    random = np.random.default_rng(1)
    length, refused = 8 + int.from_bytes(payload[:8], "little"), 0
    for _ in range(300):
        content = bytearray(payload)
        content[random.integers(length)] = random.integers(256)
        try:
            runtime.resume(bytes(content), policy(2.0, 2.0))
        except OfframpError:
            refused += 1
    assert refused > 200


def test_numbers_too_large_for_fp16_are_refused_where_they_are_sent(runtime: Runtime) -> None:
    large = 1e6 * samples()[0]
    with pytest.raises(DataError, match="fp16 has none above 65504"):
        runtime.run_until(large, "one", encoding="fp16")
    wanted = runtime.run(large).outputs
    found = runtime.resume(runtime.run_until(large, "one", encoding="int8")).outputs
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())
