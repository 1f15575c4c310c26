import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.calibration.budget import budget_curve, budgeted, geometric
from offramp.cost import with_passed
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs
from offramp.policy.policy import ExitPolicy
from offramp.policy.scores import find_score
from offramp.task import measure_of

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of
STAGES, BRANCHES = [10, 20, 40, 30], [4, 3, 2, 0]


def made(seed: int = 0, count: int = 157, exits: int = 3, **changes: Any) -> ExitOutputs:
    """Later exits are better, and more confident when they are right."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, count)
    hard = random.normal(size=count)
    logits = random.normal(size=(exits, count, 5))
    for exit in range(exits):
        logits[exit, np.arange(count), labels] += np.maximum(0.2, 1.2 + exit - 1.3 * hard)
    given = {
        "outputs": logits,
        "labels": labels,
        "stage_flops": STAGES[:exits],
        "branch_flops": [*BRANCHES[: exits - 1], 0],
    }
    outputs: ExitOutputs = any_outputs(**(given | changes))
    return outputs


def regression(seed: int = 0, count: int = 91) -> ExitOutputs:
    random = np.random.default_rng(seed)
    labels = random.normal(size=count)
    wrong = random.normal(size=(3, count)) / np.array([1, 2, 3])[:, None]
    return made(
        count=count,
        outputs=(labels + wrong)[..., None],
        labels=labels,
        task="regression",
        scores=-np.abs(wrong) + 0.3 * random.normal(size=wrong.shape),
    )


def tied(outputs: ExitOutputs) -> ExitOutputs:
    """Outputs with few distinct logits, so that scores tie."""
    return made(outputs=np.round(outputs.outputs / 2), labels=outputs.labels)


def value(policy: ExitPolicy, outputs: ExitOutputs) -> float:
    values = measure_of(outputs.task).values(policy.answers(outputs), outputs.labels)
    return float(values.mean())


@given(seed=st.integers(0, 2**16), share=st.floats(0.14, 1.2), ties=st.booleans())
@settings(max_examples=12, deadline=None)
def test_the_budget_is_kept_and_the_geometric_rule_never_beats_the_search(
    seed: int, share: float, ties: bool
) -> None:
    outputs = tied(made(seed)) if ties else made(seed)
    budget = share * 100
    best, rule = budgeted(outputs, budget), geometric(outputs, budget)
    assert best.cost(outputs).mean() <= budget * (1 + 1e-9)
    assert rule.cost(outputs).mean() <= budget * (1 + 1e-9)
    assert value(best, outputs) >= value(rule, outputs)


@given(seed=st.integers(0, 2**16), shares=st.lists(st.floats(0.2, 1.2), min_size=2, max_size=6))
@settings(max_examples=12, deadline=None)
def test_a_larger_budget_is_never_less_accurate(seed: int, shares: list[float]) -> None:
    budgets = sorted(70 * share for share in shares)
    points = budget_curve(made(seed), budgets)
    values = [point.value for point in points]
    assert values == sorted(values)


def test_a_larger_budget_never_has_a_larger_error() -> None:
    outputs = regression()
    points = budget_curve(outputs, [20.0, 40.0, 60.0, 80.0], score="given")
    values = [point.value for point in points]
    assert values == sorted(values, reverse=True)
    assert all(p.mean_cost <= budget for p, budget in zip(points, (20, 40, 60, 80), strict=True))
    assert values[0] > values[-1]


@pytest.mark.parametrize("outputs", [made(3), regression(3)], ids=["classes", "values"])
def test_a_point_states_the_cost_and_value_of_its_policy(outputs: ExitOutputs) -> None:
    score = "max_softmax" if outputs.task == "classification" else "given"
    [point] = budget_curve(outputs, [35.0], score=score)
    assert point.mean_cost == point.policy.cost(outputs).mean()
    assert point.value == pytest.approx(value(point.policy, outputs), rel=1e-12)


def test_a_budget_equal_to_the_cost_of_a_policy_is_enough_for_it() -> None:
    outputs = made(1)
    [point] = budget_curve(outputs, [40.0])
    [again] = budget_curve(outputs, [point.mean_cost])
    assert again.value == point.value
    assert again.mean_cost == point.mean_cost


def test_the_search_is_close_to_an_exhaustive_search() -> None:
    outputs = made(5, count=60)
    score = find_score("max_softmax")
    first, second = score.of(outputs)
    every = [
        ExitPolicy(score=score, thresholds=pair, names=tuple(outputs.names))
        for pair in itertools.product((None, *first[::2]), (None, *second[::2]))
    ]
    judged = [(policy.cost(outputs).mean(), value(policy, outputs)) for policy in every]
    budgets = [20.0, 30.0, 40.0, 50.0]
    best = [max(v for cost, v in judged if cost <= budget) for budget in budgets]
    found = [point.value for point in budget_curve(outputs, budgets)]
    assert np.mean(np.subtract(found, best)) >= -0.005


def test_a_useless_exit_is_disabled_and_its_branch_costs_nothing() -> None:
    outputs = made(2)
    useless = made(2, outputs=np.concatenate([0 * outputs.outputs[:1], outputs.outputs[1:]]))
    policy = budgeted(useless, 55.0)
    assert policy.thresholds[0] is None
    assert policy.cost(useless).min() == 10 + 20 + 3


def test_the_smallest_budget_gives_the_cheapest_exit() -> None:
    outputs = made()
    policy = budgeted(outputs, 14.0)
    assert set(policy.cost(outputs)) == {14.0}
    lower = made(7, outputs=outputs.outputs - 50.0)  # a threshold that fires on any score
    assert set(policy.choose(lower)) == {0}


def test_a_later_exit_may_be_the_cheapest() -> None:
    outputs = made(branch_flops=[50, 1, 0])
    assert set(budgeted(outputs, 31.0).choose(outputs)) == {1}


@pytest.mark.parametrize("choose", [budgeted, geometric])
def test_a_budget_below_the_cheapest_exit_is_refused(choose: Any) -> None:
    with pytest.raises(
        PlanError, match=r"budget=13.9 .* cheapest policy costs 14 flops.*exit 1 33"
    ):
        choose(made(), 13.9)
    with pytest.raises(PlanError, match="NaN"):
        choose(made(), float("nan"))


def test_a_budget_is_in_the_requested_unit() -> None:
    outputs = made(stage_ms=[1.0, 1.5, 2.5], branch_ms=[0.5, 0.25, 0.0])
    policy = budgeted(outputs, 2.0, cost="ms")
    assert policy.cost(outputs, "ms").mean() <= 2.0
    with pytest.raises(PlanError, match=r"1\.5 ms"):
        budgeted(outputs, 1.4, cost="ms")


def test_a_budget_policy_has_no_promise_and_keeps_the_source() -> None:
    policy = budgeted(made(source={"engine": "torch"}), 40.0, temperatures=(2.0, 0.5))
    assert policy.promise is None
    assert policy.source == {"engine": "torch"}
    assert policy.temperatures == (2.0, 0.5)
    assert ExitPolicy.from_json(policy.as_json()).thresholds == policy.thresholds


def test_quotas_match_a_hand_calculation() -> None:
    sure = np.array([[9, 8, 7, 6, 5, 4, 3], [1, 2, 9, 5, 6, 7, 8], [0] * 7], float)
    logits = np.stack([sure, np.zeros_like(sure)], axis=-1)
    outputs = made(outputs=logits, labels=[0] * 7)  # with q = 1 quotas are 2, 2 and what is left
    policy = geometric(outputs, (2 * 14 + 2 * 37 + 3 * 77) / 7)
    assert policy.choose(outputs).tolist() == [0, 0, 1, 2, 2, 2, 1]


def test_an_exit_with_a_score_of_minus_infinity_never_fires() -> None:
    outputs = regression()
    policy = budgeted(outputs, 45.0, score="agreement")
    assert 0 not in policy.choose(outputs)


def test_a_budget_works_without_early_exits() -> None:
    outputs = made(exits=1)
    assert budgeted(outputs, 10.0).thresholds == ()


def timed(outputs: ExitOutputs, seed: int) -> ExitOutputs:
    """Outputs with times whose sums are rounded."""
    stages, branches = np.random.default_rng(seed).random((2, len(outputs.names)))
    times: Any = {"stage_ms": stages + 0.1, "branch_ms": [*branches[:-1] / 10, 0.0]}
    return replace(outputs, **times)


def permuted(outputs: ExitOutputs, seed: int) -> ExitOutputs:
    rows = np.random.default_rng(seed).permutation(len(outputs.labels))
    given = None if outputs.scores is None else outputs.scores[:, rows]
    return replace(
        outputs, outputs=outputs.outputs[:, rows], labels=outputs.labels[rows], scores=given
    )


@pytest.mark.slow
@given(seed=st.integers(0, 2**16), share=st.floats(0.1, 0.9), kind=st.sampled_from("cvat"))
@settings(max_examples=20, deadline=None)
def test_a_budget_equal_to_the_cost_is_enough_in_any_order_of_rows(
    seed: int, share: float, kind: str
) -> None:
    made_of: Any = {"c": made, "t": lambda s: tied(made(s)), "v": regression, "a": regression}
    score = {"c": "max_softmax", "t": "entropy", "v": "given", "a": "agreement"}[kind]
    outputs = timed(made_of[kind](seed), seed)
    cheapest, *_, dearest = np.sort(outputs.with_passed_cost("ms")[1:])
    budget = cheapest + share * (dearest - cheapest)
    [first] = budget_curve(outputs, [budget], score=score, cost="ms")
    other = permuted(outputs, seed)
    spent = [float(first.policy.cost(rows, "ms").mean()) for rows in (outputs, other)]
    for rows in (outputs, other):
        for again in budget_curve(rows, spent, score=score, cost="ms"):
            assert again.policy.thresholds == first.policy.thresholds
            assert (again.mean_cost, again.value) == (first.mean_cost, first.value)


def test_a_budget_below_the_cheapest_exit_by_rounding_is_accepted() -> None:
    outputs = made()
    for choose in (budgeted, geometric):
        assert set(choose(outputs, 14 * (1 - 5e-10)).choose(outputs)) == {0}
        with pytest.raises(PlanError, match="is too small"):
            choose(outputs, 14 * (1 - 5e-9))


def test_the_error_for_a_budget_gives_costs_only_of_exits_that_can_answer_alone() -> None:
    said = (
        r"cheapest .* costs 37 flops.*alone: exit 0 cannot answer all samples "
        r"\(the score 'agreement' .*exit 1 37, final 70"
    )
    with pytest.raises(PlanError, match=said):
        budgeted(regression(), 20.0, score="agreement")


def hard(kind: str, num: int = 1200) -> ExitOutputs:
    """Two early exits; the first is poor, or confident when it is wrong."""
    outputs = made(7, num)
    random = np.random.default_rng(1)
    logits = np.array(outputs.outputs)
    labels = np.asarray(outputs.labels, np.int64)
    if kind == "poor":
        logits[0] = random.normal(size=logits[0].shape)
        logits[0, np.arange(num), labels] += 0.3
    else:
        misled = np.flatnonzero(random.random(num) < 0.25)
        logits[0, misled, (labels[misled] + 1) % 5] += 9
        logits[1, misled[::2], (labels[misled[::2]] + 2) % 5] += 4
    return replace(outputs, outputs=logits)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poor", "misleading"])
def test_the_search_is_as_good_as_a_fine_grid_of_thresholds(kind: str) -> None:
    outputs = hard(kind)
    scores = find_score("max_softmax").of(outputs)
    right = outputs.correct
    grid = [np.append(np.quantile(row, np.linspace(0, 1, 250)), np.inf) for row in scores]
    costs, values = np.zeros((251, 251)), np.zeros((251, 251))
    for place, threshold in enumerate(grid[0]):
        first = scores[0] >= threshold
        for other, level in enumerate(grid[1]):
            second = ~first & (scores[1] >= level)
            last = ~first & ~second
            passed = np.append(np.isfinite([threshold, level]), True)
            shares = [first.mean(), second.mean(), last.mean()]
            costs[place, other] = with_passed(*outputs.costs(), passed) @ shares
            kept = (first & right[0]) | (second & right[1]) | (last & right[2])
            values[place, other] = kept.mean()
    budgets = np.linspace(costs.min() * 1.05, costs.max(), 7).tolist()
    for point, budget in zip(budget_curve(outputs, budgets), budgets, strict=True):
        assert point.value >= values[costs <= budget].max() - 0.002
