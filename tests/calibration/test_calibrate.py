import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offramp.calibration import Request, calibrate, calibration_of, calibrations
from offramp.calibration.budget import budgeted
from offramp.errors import DataError, NoPolicyError, OfframpError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, PolicyMenu, Score, find_score
from offramp.policy.scores import Seen

Make = Callable[..., ExitOutputs]
whatever: Any = calibrate  # for settings that the types forbid


def saved(outputs: ExitOutputs, **arguments: Any) -> float:
    try:
        return float(calibration_of(outputs, **arguments).saved)
    except NoPolicyError:
        return 0.0


def drop(policy: ExitPolicy, outputs: ExitOutputs) -> float:
    right = outputs.correct
    answered = right[policy.choose(outputs), np.arange(right.shape[1])]
    return float(right[-1].mean() - answered.mean())


def errors_of(values: ExitOutputs) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.abs(values.outputs[:, :, 0] - values.labels.astype(np.float64))


@pytest.fixture(scope="module")
def pool() -> ExitOutputs:
    random = np.random.default_rng(3)
    num = 2000
    labels, ease = random.integers(0, 5, num), random.standard_normal(num)
    outputs = 0.1 * random.standard_normal((3, num, 5))
    for exit, skill in enumerate((0.7, 1.1, 1.5)):
        ahead = 2 * (skill + 0.8 * ease + 0.5 * random.standard_normal(num))
        outputs[exit, np.arange(num), labels] += 3 + ahead
        outputs[exit, np.arange(num), (labels + random.integers(1, 5, num)) % 5] += 3 - ahead
    return ExitOutputs(
        outputs=outputs.astype(np.float32),
        labels=labels,
        stage_flops=np.array([20, 30, 50]),
        branch_flops=np.array([2, 3, 0]),
        groups=np.where(ease > 0, "day", "night"),
        source={"engine": "torch", "precision": "float32", "model": "abc", "split": "calibration"},
    )


REQUESTS: list[dict[str, Any]] = [
    {"max_drop": 0.03},
    {"max_drop": 0.03, "method": "ucb", "score": "patience"},
    {"max_drop": 0.03, "temperature": True, "score": "entropy"},
    {"max_drop": 0.1, "within": "class"},
    {"max_disagreement": 0.08, "within": "group"},
]


@pytest.mark.parametrize("arguments", REQUESTS)
def test_permuting_samples_and_split_together_changes_nothing(
    pool: ExitOutputs, rows: Make, arguments: dict[str, Any]
) -> None:
    random = np.random.default_rng(1)
    split = random.choice(
        ["stopping", "temperature", "order", "test"], 2000, p=[0.1, 0.1, 0.3, 0.5]
    )
    moved = random.permutation(2000)
    first = calibration_of(pool, split=split, **arguments)
    second = calibration_of(rows(pool, moved), split=split[moved], **arguments)
    assert first.as_json() == second.as_json()


@given(seed=st.integers(0, 99), bound=st.sampled_from([5.0, 0.7]))
@settings(max_examples=10, deadline=None)
def test_permuting_a_regression_and_its_split_together_changes_nothing(
    seed: int, bound: float
) -> None:
    values, random = regression(300, seed), np.random.default_rng(seed)
    split, moved = random.choice(["order", "test"], 300), random.permutation(300)
    arguments: dict[str, Any] = {"max_rise": 0.5, "score": "agreement", "loss_bound": bound}
    first = calibration_of(values, split=split, **arguments)
    changed = dataclasses.replace(
        values, outputs=values.outputs[:, moved], labels=values.labels[moved]
    )
    assert first.as_json() == calibration_of(changed, split=split[moved], **arguments).as_json()


def regression(num: int, seed: int) -> ExitOutputs:
    """Early exits have larger errors where they agree less."""
    random = np.random.default_rng(seed)
    labels, hard = random.normal(0, 3, num), random.gamma(0.7, 1.0, num)
    spread = np.array([0.5, 0.25, 0.1])[:, np.newaxis] * hard
    return ExitOutputs(
        outputs=(labels + spread * random.standard_normal((3, num)))[..., None].astype(np.float32),
        labels=labels,
        task="regression",
        stage_flops=np.array([20, 30, 50]),
        branch_flops=np.array([2, 3, 0]),
    )


@pytest.mark.slow
@given(
    strict=st.floats(0.002, 0.1),
    more=st.floats(0.0, 0.1),
    seed=st.integers(0, 20),
    arguments=st.sampled_from(
        [
            {"goal": "max_drop"},
            {"goal": "max_drop", "method": "ucb"},
            {"goal": "max_drop", "within": "group"},
            {"goal": "max_disagreement"},
        ]
    ),
)
@settings(max_examples=25, deadline=None)
def test_a_stricter_limit_never_saves_more(
    pool: ExitOutputs, strict: float, more: float, seed: int, arguments: dict[str, Any]
) -> None:
    others = {name: value for name, value in arguments.items() if name != "goal"} | {"seed": seed}
    loose = saved(pool, **{arguments["goal"]: strict + more}, **others)
    assert saved(pool, **{arguments["goal"]: strict}, **others) <= loose


@given(strict=st.floats(0.01, 0.5), more=st.floats(0.0, 0.4), seed=st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_a_stricter_rise_never_saves_more(strict: float, more: float, seed: int) -> None:
    values = regression(700, seed)
    arguments: dict[str, Any] = {"score": "agreement", "seed": seed, "loss_bound": 3.0}
    assert saved(values, max_rise=strict, **arguments) <= saved(
        values, max_rise=strict + more, **arguments
    )


def _mute_at(exit: int) -> Score:
    """Maximum softmax, but the exit of this number is never sure."""

    def at(seen: Seen) -> np.ndarray[Any, np.dtype[np.float64]]:
        if len(seen.outputs) - 1 == exit:
            return np.full(len(seen.outputs[0]), -np.inf)
        return find_score("max_softmax").at(seen)

    return Score("muted", at)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_exit_that_never_fires_changes_nothing(pool: ExitOutputs, place: int) -> None:
    stages, branches = [20, 30, 50], [2, 3, 0]
    half = stages[place] // 2
    wider = dataclasses.replace(
        pool,
        outputs=np.insert(pool.outputs, place, 0.0, axis=0),
        stage_flops=np.array([*stages[:place], half, stages[place] - half, *stages[place + 1 :]]),
        branch_flops=np.array([*branches[:place], 9, *branches[place:]]),
        names=("a", "b", "c", "d"),
    )
    plain = calibration_of(pool, max_drop=0.03)
    more = calibration_of(wider, max_drop=0.03, score=_mute_at(place))
    thresholds = list(more.policy.thresholds)
    assert thresholds.pop(place) is None
    assert tuple(thresholds) == plain.policy.thresholds
    assert more.saved == plain.saved


@given(place=st.integers(0, 1), threshold=st.floats(1.01, 5))
@settings(max_examples=10, deadline=None)
def test_the_branch_of_an_enabled_exit_costs_samples_that_pass_it(
    pool: ExitOutputs, place: int, threshold: float
) -> None:
    policy = calibrate(pool, max_drop=0.05)
    thresholds = list(policy.thresholds)
    thresholds[place] = None
    off = dataclasses.replace(policy, thresholds=tuple(thresholds))
    thresholds[place] = threshold  # above every probability
    on = dataclasses.replace(policy, thresholds=tuple(thresholds))
    np.testing.assert_array_equal(on.choose(pool), off.choose(pool))
    passed = pool.branch_flops[place] * (off.choose(pool) >= place)
    np.testing.assert_array_equal(on.cost(pool) - off.cost(pool), passed)


@pytest.mark.parametrize("arguments", REQUESTS)
def test_certification_stops_at_the_first_failure(
    pool: ExitOutputs, arguments: dict[str, Any]
) -> None:
    found = calibration_of(pool, **arguments)
    [limit] = [value for name, value in arguments.items() if name.startswith("max_")]
    most = limit if arguments.get("method") == "ucb" else 1 - 0.95
    tested = [each.tested for each in found.path]
    assert all(value <= most for value in tested[: found.num_certified] if value is not None)
    assert None not in tested[: found.num_certified]
    if found.num_certified < len(found.path):
        after = tested[found.num_certified]
        assert after is not None
        assert after > most
        assert set(tested[found.num_certified + 1 :]) <= {None}
    saving = [each.saved for each in found.path[: found.num_certified]]
    assert found.saved == max(saving) == saving[found.chosen] > 0
    assert found.policy.thresholds == found.path[found.chosen].thresholds


def test_the_p_value_uses_the_test_rows_only(pool: ExitOutputs) -> None:
    split = np.where(np.arange(2000) < 800, "order", "test")
    found = calibration_of(pool, max_disagreement=0.05, split=split)
    wrong = pool.predictions[found.policy.choose(pool), np.arange(2000)] != pool.predictions[-1]
    expected = stats.binom.cdf(wrong[800:].sum(), 1200, 0.05)
    assert found.path[found.chosen].tested == pytest.approx(expected)
    assert found.policy.promise is not None
    assert found.policy.promise.num_samples == 1200
    assert found.policy.promise.estimate == wrong[800:].mean()


def test_the_stated_savings_match_the_cost_of_the_policy(pool: ExitOutputs) -> None:
    for score in ("margin", "patience"):
        found = calibration_of(pool, max_drop=0.05, score=score)
        np.testing.assert_allclose(found.saved, 1 - found.policy.cost(pool).mean() / 100)


def test_the_cost_to_save_can_be_milliseconds(pool: ExitOutputs) -> None:
    times = {"stage_ms": np.array([1.0, 1, 5]), "branch_ms": np.array([0.1, 0.2, 0])}
    timed = dataclasses.replace(pool, **times)  # type: ignore[arg-type]
    found = calibration_of(timed, max_drop=0.03, cost="ms")
    np.testing.assert_allclose(found.saved, 1 - found.policy.cost(timed, "ms").mean() / 7)


def test_rows_used_for_early_stopping_are_ignored(pool: ExitOutputs, rows: Make) -> None:
    split = np.where(np.arange(2000) % 5 == 0, "stopping", "test")
    split[np.arange(2000) % 5 == 1] = "order"
    other = np.array(pool.outputs)
    other[:-1, ::5] = other[:-1, ::5][:, ::-1]
    changed = dataclasses.replace(pool, outputs=other)
    first, second = (
        calibration_of(outputs, max_drop=0.03, split=split).path for outputs in (pool, changed)
    )
    assert [each.thresholds for each in first] == [each.thresholds for each in second]
    assert [each.tested for each in first] == [each.tested for each in second]


def test_the_path_depends_on_neither_limit_nor_confidence(pool: ExitOutputs) -> None:
    requests: list[dict[str, Any]] = [
        {"max_drop": 0.02},
        {"max_drop": 0.09},
        {"max_drop": 0.05, "confidence": 0.6},
    ]
    paths = [
        [each.thresholds for each in calibration_of(pool, **arguments).path]
        for arguments in requests
    ]
    assert paths[0] == paths[1] == paths[2]


def test_both_methods_certify_the_same_and_ucb_shows_the_margin(pool: ExitOutputs) -> None:
    tests, bounds = (calibration_of(pool, max_drop=0.03, method=m) for m in ("ltt", "ucb"))
    assert tests.num_certified == bounds.num_certified
    kept = [each.tested or 0.0 for each in bounds.path[: bounds.num_certified]]
    assert max(kept) <= 0.03
    assert kept[0] < 0.02
    assert "bound" in str(bounds)


def test_a_promise_within_groups_saves_less_than_one_on_average(pool: ExitOutputs) -> None:
    apart = calibration_of(pool, max_drop=0.08, within="group")
    assert 0 < apart.saved < calibration_of(pool, max_drop=0.08).saved
    assert "in each group" in str(apart.policy)


def test_a_class_too_small_to_certify_is_named(pool: ExitOutputs) -> None:
    groups = np.where(np.arange(2000) < 7, "dusk", "day")
    with pytest.raises(NoPolicyError, match=r"in group dusk \(\d test samples\)") as error:
        calibrate(dataclasses.replace(pool, groups=groups), max_drop=0.05, within="group")
    assert error.value.num_samples_needed is not None
    assert error.value.num_samples_needed > 2000 * 60 / 7  # 60 certify 5 points without a loss


def test_each_policy_of_a_menu_is_certified_on_its_own(pool: ExitOutputs) -> None:
    menu = calibrate(pool, max_drop=(0.05, 0.02, 0.0001))
    assert isinstance(menu, PolicyMenu)
    assert menu.limits == (0.02, 0.05)
    assert menu.declined == (0.0001,)
    for limit in menu.limits:
        assert menu.at(limit).as_json() == calibrate(pool, max_drop=limit).as_json()
    found = calibrations(pool, Request.of(max_drop=(0.02, 0.05)))
    assert [each.policy.as_json() for each in found] == [policy.as_json() for policy in menu]


def test_a_budget_is_kept_and_comes_without_a_promise(pool: ExitOutputs) -> None:
    policy = calibrate(pool, budget=60.0)
    assert policy.promise is None
    assert policy.as_json() == budgeted(pool, 60.0).as_json()


def test_temperatures_are_fitted_on_separate_rows(pool: ExitOutputs) -> None:
    found = calibration_of(pool, max_drop=0.03, temperature=True)
    assert found.policy.temperatures is not None
    assert len(found.policy.temperatures) == 2
    assert 200 < found.num_samples["temperature"] < 400
    assert sum(found.num_samples.values()) == 2000


def test_temperatures_do_not_depend_on_the_order_of_rows(pool: ExitOutputs, rows: Make) -> None:
    random = np.random.default_rng(0)
    split = random.choice(["temperature", "order", "test"], 2000)
    found = set()
    for _ in range(12):
        moved = random.permutation(2000)
        policy = calibrate(rows(pool, moved), max_drop=0.05, temperature=True, split=split[moved])
        found.add(policy.temperatures)
    assert len(found) == 1


def test_a_regression_promise_states_where_losses_are_clipped() -> None:
    values = regression(3000, 1)
    policy = calibrate(values, max_rise=0.1, score="agreement", loss_bound=2.0)
    assert policy.promise is not None
    assert policy.promise.loss_bound == 2.0
    assert "clipped" in str(policy)
    errors = errors_of(values)
    rise = errors[policy.choose(values), np.arange(3000)] - errors[-1]
    assert rise.mean() < 0.1
    with pytest.raises(PlanError, match="not below loss_bound"):
        calibrate(values, max_rise=2.5, score="agreement", loss_bound=2.0)


def test_a_regression_is_calibrated_by_agreement_or_the_scores_it_has() -> None:
    values = regression(3000, 1)
    arguments: dict[str, Any] = {"max_rise": 0.1, "loss_bound": 2.0}
    found = calibration_of(values, **arguments)
    assert found.as_json() == calibration_of(values, score="agreement", **arguments).as_json()
    within = calibrate(values, budget=90.0)
    assert isinstance(within, ExitPolicy)
    assert within.score.name == "agreement"
    scored = dataclasses.replace(values, scores=-errors_of(values))
    learned = calibrate(scored, **arguments)
    assert isinstance(learned, ExitPolicy)
    assert learned.score.name == "given"


def test_a_promise_about_errors_names_the_value() -> None:
    values = dataclasses.replace(regression(3000, 1), source={"class_names": ["people"]})
    policy = calibrate(values, max_rise=0.1, loss_bound=2.0)
    assert "the mean absolute error (people) rises by at most 0.1" in str(policy)
    with pytest.raises(PlanError, match=r"--loss-bound.* labels' range, here \d"):
        calibrate(values, max_rise=0.1)


def test_the_policy_remembers_what_it_was_certified_for(pool: ExitOutputs) -> None:
    policy = calibrate(pool, max_drop=0.03)
    assert policy.source == pool.source
    assert policy.promise is not None
    assert (policy.promise.goal, policy.promise.limit) == ("max_drop", 0.03)


def test_the_report_gives_the_number_of_test_samples(pool: ExitOutputs) -> None:
    found = calibration_of(pool, max_drop=0.03)
    text = str(found)
    order, test = found.num_samples["order"], found.num_samples["test"]
    assert f"{order} ordered the candidates and {test} tested them; the promise rests" in text
    assert "chosen" in text
    assert "not certified" in text
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["saved"] == found.saved


@pytest.mark.parametrize("num", [1, 2, 5, 40])
def test_too_few_samples_are_refused_with_the_number_needed(
    pool: ExitOutputs, rows: Make, num: int
) -> None:
    with pytest.raises(NoPolicyError, match="calibration sample") as error:
        calibrate(rows(pool, np.arange(num)), max_drop=0.01)
    needed = error.value.num_samples_needed
    assert needed is not None
    assert needed > math.log(0.05) / math.log(1 - 0.01)  # no loss at all, on test rows alone
    assert f"{needed:,}" in str(error.value) or str(needed) in str(error.value)


def test_the_stated_number_of_samples_is_about_enough(make_pool: Make, draw: Any) -> None:
    pool = make_pool(20_000, skill=(0.5, 0.8, 1.5))
    with pytest.raises(NoPolicyError) as error:
        calibrate(draw(pool, 300, 1), max_drop=0.01)
    needed = error.value.num_samples_needed
    assert needed is not None
    issued = [saved(draw(pool, 2 * needed, seed), max_drop=0.01) > 0 for seed in range(20)]
    assert np.mean(issued) > 0.6


def test_the_error_holds_the_closest_policy_without_a_promise(pool: ExitOutputs) -> None:
    with pytest.raises(NoPolicyError, match=r"Testing stopped at .* p = ") as error:
        calibrate(pool, max_drop=0.0005)
    closest = error.value.closest
    assert closest is not None
    assert closest.promise is None
    assert closest.enabled.any()
    assert isinstance(error.value, OfframpError)


def test_no_sample_size_is_enough_if_every_exit_is_worse(pool: ExitOutputs) -> None:
    bad = np.array(pool.outputs)
    bad[:-1] = np.roll(bad[:-1], 1, axis=-1)  # sure, and wrong
    with pytest.raises(NoPolicyError, match="no sample size would be enough") as error:
        calibrate(dataclasses.replace(pool, outputs=bad), max_drop=0.01)
    assert error.value.num_samples_needed is None


def test_a_policy_without_early_exits_is_never_issued(pool: ExitOutputs) -> None:
    expensive = dataclasses.replace(pool, branch_flops=np.array([500, 500, 0]))
    with pytest.raises(NoPolicyError, match="No thresholds save") as error:
        calibrate(expensive, max_drop=0.5)
    assert error.value.closest is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "exactly one of .* got none"),
        ({"max_drop": 0.01, "budget": 3.0}, "max_drop=0.01, budget=3.0"),
        ({"max_drop": 1.5}, "above 0 and below 1"),
        ({"max_drop": ()}, "at least one limit"),
        ({"max_drop": 0.0}, "above 0"),
        ({"max_disagreement": (0.1, 0.2)}, "one limit"),
        ({"max_rise": 0.1}, "does not apply to a classification"),
        ({"max_drop": 0.1, "confidence": 95}, "between 0 and 1"),
        ({"max_drop": 0.1, "method": "crc"}, "must be 'ltt' or 'ucb'"),
        ({"max_drop": 0.1, "within": "day"}, "must be 'class' or 'group'"),
        ({"max_drop": 0.1, "loss_bound": 2.0}, "loss_bound=2.0"),
        ({"max_drop": 0.1, "score": "sureness"}, "max_softmax"),
        ({"max_drop": 0.1, "split": ["test", "order"]}, "one role per row"),
        ({"max_drop": 0.1, "split": ["fresh"] * 2000}, "'fresh'"),
    ],
)
def test_an_impossible_request_is_refused_with_the_reason(
    pool: ExitOutputs, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(PlanError, match=text):
        whatever(pool, **arguments)


@pytest.mark.parametrize("goal", ["max_drop", "max_disagreement"])
def test_a_promise_about_accuracy_is_refused_for_a_regression(goal: str) -> None:
    with pytest.raises(PlanError, match=f"{goal} does not apply to a regression. Use max_rise"):
        whatever(regression(50, 0), score="agreement", **{goal: 0.1})


def test_the_error_describes_where_testing_stopped_and_holds_the_closest_policy() -> None:
    # among the rows that test, the early exit errs where it is surest and helps further down
    random, num = np.random.default_rng(0), 2000
    split = np.where(np.arange(num) < 700, "order", "test")
    score, some = random.random(num), (split == "test") & (random.random(num) < 0.2)
    wrong = np.array([some & (score > 0.9), some & (score < 0.9) & (score > 0.5)])
    outputs = ExitOutputs(
        outputs=np.eye(2, dtype=np.float32)[wrong.astype(np.int64)],
        labels=np.zeros(num, np.int64),
        stage_flops=np.array([20, 80]),
        branch_flops=np.array([2, 0]),
        scores=np.array([score, score]),
    )
    with pytest.raises(NoPolicyError, match=r"stopped at a policy that saves [2-5]\.") as error:
        calibrate(outputs, max_drop=0.004, score="given", split=split)
    closest = error.value.closest
    assert closest.thresholds[0] < 0.9


def test_all_mistakes_in_a_request_are_listed(pool: ExitOutputs) -> None:
    with pytest.raises(PlanError, match=r"(?s)max_drop=2.*confidence=0.*method='x'"):
        whatever(pool, max_drop=2, method="x", confidence=0)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_splits_used_in_training_are_refused(pool: ExitOutputs, split: str) -> None:
    used = dataclasses.replace(pool, source={"split": split})
    with pytest.raises(DataError, match=f"{split} split.*calibration.npz"):
        calibrate(used, max_drop=0.03)
    fresh = np.where(np.arange(2000) < 700, "order", "test")
    assert calibrate(used, max_drop=0.03, split=fresh).promise is not None


def test_the_class_that_stopped_testing_is_named(pool: ExitOutputs) -> None:
    names = ["ant", "bee", "cow", "dog", "elk"]
    named = dataclasses.replace(pool, source={"class_names": names})
    with pytest.raises(NoPolicyError, match=r"in class (ant|bee|cow|dog|elk) \(\d+ test samples\)"):
        calibrate(named, max_drop=0.001, within="class")


def test_within_class_temperatures_and_missing_groups_are_refused_for_a_regression() -> None:
    values = regression(50, 0)
    for arguments in ({"within": "class"}, {"within": "group"}, {"temperature": True}):
        with pytest.raises(PlanError, match=r"regression|have none"):
            whatever(values, max_rise=0.1, score="agreement", loss_bound=2.0, **arguments)


def test_temperatures_without_separate_rows_are_refused(pool: ExitOutputs) -> None:
    split = np.where(np.arange(2000) < 700, "order", "test")
    with pytest.raises(DataError, match="role 'temperature'"):
        calibrate(pool, max_drop=0.03, temperature=True, split=split)


def test_too_few_rows_for_temperatures_are_refused_with_that_reason(
    pool: ExitOutputs, rows: Make
) -> None:
    with pytest.raises(DataError, match="but none of these 1 was drawn"):
        calibrate(rows(pool, np.array([3])), max_drop=0.1, temperature=True)


@pytest.mark.parametrize("part", ["order", "test"])
def test_a_split_without_a_required_role_is_refused(pool: ExitOutputs, part: str) -> None:
    with pytest.raises(DataError, match="gives no row the role"):
        calibrate(pool, max_drop=0.03, split=np.full(2000, part))


def test_settings_without_effect_on_a_budget_are_refused(pool: ExitOutputs) -> None:
    with pytest.raises(PlanError, match="confidence, within cannot be combined with a budget"):
        calibrate(pool, budget=80, confidence=0.9, within="class")


def test_outputs_without_an_early_exit_are_refused(pool: ExitOutputs) -> None:
    last = ExitOutputs(
        outputs=pool.outputs[-1:],
        labels=pool.labels,
        stage_flops=np.array([100]),
        branch_flops=np.array([0]),
    )
    with pytest.raises(ShapeError, match="no early exit"):
        calibrate(last, max_drop=0.05)


def test_numpy_numbers_are_accepted(pool: ExitOutputs) -> None:
    one, several = np.float64(0.05), np.array([0.04, 0.05])
    assert calibrate(pool, max_drop=one).promise == calibrate(pool, max_drop=0.05).promise
    menu: Any = calibrate(pool, max_drop=several)  # type: ignore[call-overload]
    assert menu.limits == (0.04, 0.05)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_a_seed_that_is_not_a_whole_number_is_refused(pool: ExitOutputs, seed: Any) -> None:
    with pytest.raises(PlanError, match="seed="):
        calibrate(pool, max_drop=0.05, seed=seed)


def test_the_stated_number_of_samples_certifies_lossless_exits() -> None:
    def lossless(num: int) -> ExitOutputs:
        labels = np.arange(num) % 3
        return ExitOutputs(
            outputs=np.stack([np.eye(3, dtype=np.float32)[labels]] * 2)
            * np.linspace(4, 9, num, dtype=np.float32)[:, np.newaxis],
            labels=labels,
            stage_flops=np.array([10, 90]),
            branch_flops=np.array([1, 0]),
        )

    with pytest.raises(NoPolicyError) as declined:
        calibrate(lossless(40), max_drop=0.02)
    enough = declined.value.num_samples_needed
    assert enough is not None
    issued = 0
    for seed in range(20):
        with contextlib.suppress(NoPolicyError):
            issued += calibrate(lossless(enough), max_drop=0.02, seed=seed).promise is not None
    assert issued >= 12


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": [0, 1, 7]}, "labels must be 0 to 4"),
        ({"outputs": np.full((2, 3, 5), np.nan)}, "NaN"),
        ({"scores": [[0.1, np.nan, 0.2], [0, 0, 0]]}, "scores has 1 values that are NaN"),
        ({"scores": [[0.1, 0.2], [0, 0]]}, "scores must have shape"),
        ({"outputs": np.zeros((2, 0, 5)), "labels": []}, "with no axis of length 0"),
    ],
)
def test_unusable_arrays_are_refused_by_exit_outputs(change: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {
        "outputs": np.zeros((2, 3, 5)),
        "labels": [0, 1, 4],
        "stage_flops": [1, 2],
        "branch_flops": [1, 0],
    }
    with pytest.raises(ShapeError, match=text):
        ExitOutputs(**(given | change))


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.05, 0.1])
@pytest.mark.parametrize("limit", [0.01, 0.02])
def test_a_promise_is_broken_no_more_often_than_stated(
    make_pool: Make, draw: Any, limit: float, level: float
) -> None:
    pool, draws = make_pool(8000), 1000
    risks = []
    for seed in range(draws):
        try:
            policy = calibrate(
                draw(pool, 1200, seed), max_drop=limit, confidence=1 - level, seed=seed
            )
        except NoPolicyError:
            continue
        risks.append(drop(policy, pool))
    broken = (np.array(risks) > limit).sum()
    assert len(risks) > draws / 2
    assert broken <= stats.binom.ppf(0.999, draws, level)


@pytest.mark.slow
def test_a_rise_promise_is_broken_no_more_often_than_stated(make_values: Make, draw: Any) -> None:
    pool, risks = make_values(6000), []
    errors = errors_of(pool)
    for seed in range(600):
        try:
            policy = calibrate(
                draw(pool, 500, seed),
                max_rise=0.05,
                score="agreement",
                confidence=0.9,
                seed=seed,
                loss_bound=5.0,
            )
        except NoPolicyError:
            continue
        rises = errors[policy.choose(pool), np.arange(6000)] - errors[-1]
        risks.append(rises.mean())
    assert len(risks) > 300
    assert (np.array(risks) > 0.05).sum() <= stats.binom.ppf(0.999, 600, 0.1)


def lossless(num: int, **more: Any) -> ExitOutputs:
    labels = np.arange(num) % 3
    return ExitOutputs(
        outputs=np.stack([np.eye(3, dtype=np.float32)[labels]] * 2)
        * np.linspace(4, 9, num, dtype=np.float32)[:, np.newaxis],
        labels=labels,
        stage_flops=np.array([10, 90]),
        branch_flops=np.array([1, 0]),
        **more,
    )


@pytest.mark.parametrize(("num", "limit"), [(598, 0.005), (299, 0.01), (59, 0.05)])
def test_lossless_rows_need_no_more_samples_than_the_exact_binomial(num: int, limit: float) -> None:
    split = np.array(["order"] * 40 + ["test"] * num)
    found = calibration_of(lossless(num + 40), max_drop=limit, split=split)
    assert found.num_certified == len(found.path)
    with pytest.raises(NoPolicyError):
        calibrate(lossless(num + 39), max_drop=limit, split=split[:-1])


def saturated(num: int) -> ExitOutputs:
    """An early exit whose softmax is 1 in most rows, some of them wrong; the logits tell which."""
    random = np.random.default_rng(5)
    labels, ease = random.integers(0, 3, num), random.random(num)
    wrong = ease < 0.05
    logits = np.zeros((2, num, 3))
    logits[0, np.arange(num), np.where(wrong, (labels + 1) % 3, labels)] = 60 + 3000 * ease
    logits[1, np.arange(num), labels] = 9
    return ExitOutputs(
        outputs=logits.astype(np.float32),
        labels=labels,
        stage_flops=np.array([20, 80]),
        branch_flops=np.array([2, 0]),
    )


def test_a_saturated_softmax_is_reported_and_a_temperature_helps() -> None:
    with pytest.raises(NoPolicyError, match=r"'exit 0' saturates: \d+ % .* temperature=True"):
        calibrate(saturated(3000), max_drop=0.01)
    assert calibration_of(saturated(3000), max_drop=0.01, temperature=True).saved > 0.5


def test_the_stated_number_of_samples_certifies_in_most_draws(make_pool: Make, draw: Any) -> None:
    given = draw(make_pool(20_000), 160, 3)
    with pytest.raises(NoPolicyError) as error:
        calibrate(given, max_drop=0.01)
    number = error.value.num_samples_needed
    assert number is not None
    redrawn = [saved(draw(given, number, seed), max_drop=0.01, seed=seed) for seed in range(20)]
    assert np.mean(np.array(redrawn) > 0) >= 0.7


def repeated(pool: ExitOutputs, units: int, sizes: Any, seed: int, rows: Make) -> ExitOutputs:
    """Rows drawn with replacement, each given as often as its cluster is large."""
    random = np.random.default_rng(seed)
    each = random.choice(np.atleast_1d(sizes), units)
    chosen = np.repeat(random.integers(0, len(pool.labels), units), each)
    return rows(pool, chosen, clusters=np.repeat(np.arange(units), each))


def test_a_promise_states_its_number_of_clusters(pool: ExitOutputs, rows: Make) -> None:
    given = repeated(pool, 900, (1, 5), 0, rows)
    found = calibration_of(given, max_drop=0.05)
    promise = found.policy.promise
    assert promise is not None
    assert promise.cluster_size == 5
    assert promise.num_clusters is not None
    assert 540 < promise.num_clusters < 720
    text = f"{promise.num_samples} samples in {promise.num_clusters} clusters of at most 5"
    assert text in str(found.policy)


def test_equal_ids_form_clusters_and_other_rows_are_independent(
    pool: ExitOutputs, rows: Make
) -> None:
    given = repeated(pool, 900, 3, 0, rows)
    texts = np.array([f"id {row // 3}" for row in range(2700)])
    named = dataclasses.replace(given, clusters=None, ids=texts)
    first, second = (calibration_of(each, max_drop=0.06) for each in (given, named))
    assert first.as_json() == second.as_json()
    alone = dataclasses.replace(pool, clusters=np.arange(2000), ids=np.arange(2000).astype(str))
    plain = calibration_of(pool, max_drop=0.03)
    assert calibration_of(alone, max_drop=0.03).as_json() == plain.as_json()


@pytest.mark.parametrize(
    "arguments", [{"max_drop": 0.06}, {"max_disagreement": 0.2, "within": "group"}]
)
def test_permuting_clustered_rows_and_split_together_changes_nothing(
    pool: ExitOutputs, rows: Make, arguments: dict[str, Any]
) -> None:
    given = repeated(pool, 800, (1, 2, 7), 0, rows)
    split = np.where(np.asarray(given.clusters) % 3 == 0, "order", "test")
    moved = np.random.default_rng(1).permutation(len(split))
    first = calibration_of(given, split=split, **arguments)
    other = rows(given, moved, clusters=np.asarray(given.clusters)[moved])
    assert first.as_json() == calibration_of(other, split=split[moved], **arguments).as_json()


def test_a_rise_can_be_certified_over_clusters() -> None:
    values = regression(6000, 1)
    clusters = np.arange(6000) // 3
    found = calibration_of(
        dataclasses.replace(values, clusters=clusters),
        max_rise=0.2,
        score="agreement",
        loss_bound=2.0,
    )
    assert found.saved > 0
    assert found.policy.promise is not None
    assert found.policy.promise.cluster_size == 3


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [5, 20, (1, 2, 5, 20)])
def test_a_promise_over_clusters_is_broken_no_more_often_than_stated(
    make_pool: Make, rows: Make, sizes: Any
) -> None:
    pool, draws, level, limit = make_pool(8000), 300, 0.1, 0.02
    risks = []
    for seed in range(draws):
        with contextlib.suppress(NoPolicyError):
            given = repeated(pool, 700, sizes, seed, rows)
            policy = calibrate(given, max_drop=limit, confidence=1 - level, seed=seed)
            risks.append(drop(policy, pool))
    assert len(risks) > draws / 2
    assert (np.array(risks) > limit).sum() <= stats.binom.ppf(0.999, draws, level)
