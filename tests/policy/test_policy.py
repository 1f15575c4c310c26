import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import BundleError, OfframpError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import (
    ExitPolicy,
    Promise,
    PromiseWarning,
    Score,
    find_score,
    load_policies,
)

SOURCE = {"engine": "torch 2", "precision": "fp32", "model": "abc", "split": "calibration"}
PROMISE = Promise(
    goal="max_drop", limit=0.01, confidence=0.95, method="ltt", num_samples=70, estimate=0.002
)


def outputs(seed: int = 0, **more: object) -> ExitOutputs:
    rng = np.random.default_rng(seed)
    return ExitOutputs(
        outputs=2 * rng.normal(size=(4, 13, 5)).astype(np.float32),
        labels=rng.integers(0, 5, 13),
        stage_flops=np.array([5, 3, 2, 9]),
        branch_flops=np.array([1, 2, 4, 0]),
        **more,  # type: ignore[arg-type]
    )


def policy(*thresholds: float | None, score: str | Score = "max_softmax") -> ExitPolicy:
    names = tuple(outputs().names)
    return ExitPolicy(score=find_score(score), thresholds=thresholds, names=names)


def test_the_first_exit_whose_score_reaches_its_threshold_answers() -> None:
    rows = outputs()
    scores = find_score("max_softmax").of(rows)
    rule = policy(0.8, None, 0.5)
    for sample, leaves in enumerate(rule.choose(rows)):
        sure = [exit for exit in (0, 2) if scores[exit, sample] >= (0.8, None, 0.5)[exit]]
        assert leaves == (sure[0] if sure else 3)
        np.testing.assert_array_equal(rule.answers(rows)[sample], rows.outputs[leaves, sample])


def test_a_score_equal_to_the_threshold_fires_and_a_disabled_exit_never_does() -> None:
    certain = Score("one", lambda seen: np.ones(13))
    assert (policy(1.0, 1.0, 1.0, score=certain).choose(outputs()) == 0).all()
    assert (policy(None, None, None, score=certain).choose(outputs()) == 3).all()


def test_cost_counts_the_branches_that_run_on_the_way() -> None:
    np.testing.assert_array_equal(policy(0.9, None, 0.9).exit_cost(outputs()), [6, 9, 15, 24])
    np.testing.assert_array_equal(policy(None, None, None).exit_cost(outputs()), [5, 8, 10, 19])


def test_the_cost_includes_branches_that_a_score_reads() -> None:
    patient = policy(None, 2.0, None, score="patience")
    np.testing.assert_array_equal(patient.exit_cost(outputs()), [6, 11, 13, 22])


@given(st.integers(0, 1000), st.integers(0, 2))
def test_an_exit_that_never_fires_changes_nothing_but_the_cost_of_passing_it(
    seed: int, exit: int
) -> None:
    rows = outputs(seed)
    without: list[float | None] = [0.5, 0.6, 0.7]
    without[exit] = None
    never = [2.0 if value is None else value for value in without]
    off, on = policy(*without), policy(*never)
    np.testing.assert_array_equal(off.choose(rows), on.choose(rows))
    passed = rows.branch_flops[exit] * (on.choose(rows) >= exit)
    np.testing.assert_array_equal(on.cost(rows), off.cost(rows) + passed)


def test_a_policy_is_restored_from_its_file(tmp_path: Path) -> None:
    made = ExitPolicy(
        score=find_score("entropy"),
        thresholds=(0.25, None, 0.5),
        names=tuple(outputs().names),
        temperatures=(1.5, 1.0, 0.75),
        promise=PROMISE,
        source=SOURCE,
    )
    made.save(tmp_path / "policy.json")
    [read] = load_policies(tmp_path / "policy.json")
    assert read.as_json() == made.as_json()
    assert read.promise == PROMISE
    rows = outputs(source=SOURCE)
    np.testing.assert_array_equal(read.choose(rows), made.choose(rows))


def test_a_custom_score_must_be_passed_when_loading(tmp_path: Path) -> None:
    mine = Score("mine", lambda seen: seen.outputs[-1].max(axis=1))
    policy(1.0, 2.0, None, score=mine).save(tmp_path / "policy.json")
    with pytest.raises(OfframpError, match="'mine'"):
        ExitPolicy.load(tmp_path / "policy.json")
    assert ExitPolicy.load(tmp_path / "policy.json", [mine]).score is mine


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "other"}', '{"policies": 3}'])
def test_a_file_that_is_not_a_policy_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "policy.json").write_text(content)
    with pytest.raises(BundleError):
        load_policies(tmp_path / "policy.json")


def test_an_incomplete_file_is_refused(tmp_path: Path) -> None:
    content = policy(0.5, 0.5, 0.5).as_json()
    del content["thresholds"]
    (tmp_path / "policy.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="thresholds"):
        ExitPolicy.load(tmp_path / "policy.json")


@pytest.mark.parametrize(
    ("name", "value"), [("precision", "int8"), ("engine", "onnxruntime"), ("model", "other")]
)
def test_the_promise_is_dropped_with_a_warning_for_another_source(name: str, value: str) -> None:
    made = ExitPolicy(
        score=find_score("max_softmax"),
        thresholds=(0.5, 0.5, 0.5),
        names=tuple(outputs().names),
        promise=PROMISE,
        source=SOURCE,
    )
    elsewhere = {**SOURCE, name: value}
    with pytest.warns(PromiseWarning, match=name):
        assert made.on(elsewhere).promise is None
    with pytest.warns(PromiseWarning, match=name):
        made.choose(outputs(source=elsewhere))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.on({**SOURCE, "split": "test"}).promise == PROMISE
        made.choose(outputs(source={**SOURCE, "split": "test"}))


def test_outputs_with_other_exits_are_refused() -> None:
    other = outputs(names=("a", "b", "c", "d"))
    with pytest.raises(ShapeError, match="Calibrate on outputs of the same model"):
        policy(0.5, 0.5, 0.5).choose(other)


@pytest.mark.parametrize(
    ("thresholds", "temperatures", "error"),
    [
        ((0.5,), None, ShapeError),
        ((0.5, float("nan"), None), None, PlanError),
        ((0.5, 0.5, 0.5), (1.0, 0.0, 1.0), ShapeError),
        ((0.5, 0.5, 0.5), (1.0,), ShapeError),
    ],
)
def test_invalid_thresholds_are_refused(
    thresholds: tuple[float | None, ...],
    temperatures: tuple[float, ...] | None,
    error: type[OfframpError],
) -> None:
    with pytest.raises(error):
        ExitPolicy(
            score=find_score("max_softmax"),
            thresholds=thresholds,
            names=tuple(outputs().names),
            temperatures=temperatures,
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", float("nan")),
        ("limit", -1.0),
        ("confidence", -1.0),
        ("confidence", float("inf")),
        ("num_samples", -1),
        ("num_clusters", 0),
        ("estimate", float("nan")),
    ],
)
def test_an_invalid_promise_is_refused_when_loading(name: str, value: float) -> None:
    content = replace(policy(0.5, 0.5, 0.5), promise=PROMISE, source=SOURCE).as_json()
    content["promise"][name] = value
    with pytest.raises(BundleError, match=rf"promise\.{name}.*Calibrate again"):
        ExitPolicy.from_json(content)


@pytest.mark.parametrize("score", [[], {}, 3, None])
def test_a_stored_score_that_is_not_a_name_is_refused(score: object) -> None:
    with pytest.raises(BundleError, match=r"expected the name of a score.*Calibrate again"):
        ExitPolicy.from_json({**policy(0.5, 0.5, 0.5).as_json(), "score": score})


def test_a_policy_needs_a_score_not_a_name_or_a_name_that_is_taken() -> None:
    name: Any = "max_softmax"
    for score in (name, Score("margin", lambda seen: np.ones(13))):
        with pytest.raises(PlanError, match=r"find_score\(name\)|Rename your Score"):
            ExitPolicy(score=score, names=("a", "final"), thresholds=(0.5,))


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), 0.0])
def test_temperatures_that_are_not_positive_are_refused(temperature: float) -> None:
    with pytest.raises(ShapeError, match="temperatures must be 1 positive number,"):
        ExitPolicy(
            score=find_score("margin"),
            names=("a", "final"),
            thresholds=(0.5,),
            temperatures=(temperature,),
        )


def test_some_of_the_exits_keep_their_thresholds_and_the_last_of_them_answers_the_rest() -> None:
    whole = replace(policy(0.3, 0.5, 0.7), temperatures=(1.0, 2.0, 3.0), promise=PROMISE)
    some = whole.only(["exit 0", "exit 2"])
    assert (some.names, some.thresholds) == (("exit 0", "exit 2"), (0.3,))
    assert (some.temperatures, some.promise) == ((1.0,), None)
    assert whole.only(["exit 1"]).thresholds == ()


@pytest.mark.parametrize("names", [[], ["exit 1", "exit 0"], ["exit 7"], ["exit 0", "exit 0"]])
def test_only_exits_of_the_policy_in_its_order_can_be_kept(names: list[str]) -> None:
    with pytest.raises(ShapeError, match="must be some of the policy's exits"):
        policy(0.3, 0.5, 0.7).only(names)


def test_a_promise_with_all_inputs_is_dropped_without_one_and_the_other_way_round() -> None:
    whole = replace(policy(0.3, 0.5, 0.7), promise=PROMISE, source=SOURCE)
    lacking = {**SOURCE, "without": ["sound"]}
    quiet = replace(whole, source=lacking)
    assert (whole.without, quiet.without) == ((), ("sound",))
    assert quiet.on(lacking) is quiet
    with pytest.warns(PromiseWarning, match="they are without sound, certified with all inputs"):
        assert whole.on(lacking).promise is None
    with pytest.warns(PromiseWarning, match="they are with all inputs, certified without sound"):
        assert quiet.on(SOURCE).promise is None
    assert str(quiet).endswith("; for samples without sound, whose final exit is final")


@pytest.mark.parametrize("without", ["sound", 7, [1]])
def test_inputs_left_out_must_be_named_in_a_list(without: object) -> None:
    wrong = replace(policy(0.3, 0.5, 0.7), promise=PROMISE, source={"without": without})
    with pytest.raises(PlanError, match="must be a list of inputs' names"):
        _ = wrong.without


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "70 samples in 1 cluster of at"), (1200, "70 samples in 1,200 clusters of at most 20")],
)
def test_a_promise_counts_its_clusters(number: int, text: str) -> None:
    assert text in str(PROMISE.model_copy(update={"num_clusters": number, "cluster_size": 20}))
