from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluation.oracle import OracleCurve, oracle_curve
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score
from offramp.task import ACCURACY, MEAN_ABSOLUTE_ERROR, Measure

COSTS = np.array([3.0, 5.0, 9.0])
MEASURES = st.sampled_from([ACCURACY, MEAN_ABSOLUTE_ERROR])


def drawn(seed: int, measure: Measure, samples: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if measure is ACCURACY:
        return (random.random((3, samples)) < 0.6).astype(np.float64)
    return random.integers(0, 6, (3, samples)) / 4


def curve(values: np.ndarray, measure: Measure, costs: np.ndarray = COSTS) -> OracleCurve:
    return oracle_curve(values, costs, 9.0, measure)


@given(
    st.integers(0, 10_000),
    MEASURES,
    st.sampled_from([(3.0, 5.0, 9.0), (5.0, 3.0, 9.0), (3.0, 3.0, 9.0)]),
)
def test_no_choice_of_exits_beats_the_oracle_and_its_points_are_attained(
    seed: int, measure: Measure, costs: tuple[float, ...]
) -> None:
    values, costs_of = drawn(seed, measure, 5), np.array(costs)
    found = curve(values, measure, costs_of)
    sign = 1 if measure.higher_is_better else -1
    choices = np.array(list(product(range(3), repeat=5)))
    reached = values[choices, np.arange(5)].mean(axis=1)
    paid = costs_of[choices].mean(axis=1) / 9
    best = np.interp(paid, found.cost_share, found.value)
    assert (sign * reached <= sign * best + 1e-12).all()
    for share, value in (
        (found.cost_share[0], found.value[0]),
        (found.cost_share[-1], found.value[-1]),
    ):
        assert ((abs(paid - share) < 1e-12) & (abs(reached - value) < 1e-12)).any()


@given(st.integers(0, 10_000), MEASURES)
def test_the_oracle_curve_is_increasing_and_concave(seed: int, measure: Measure) -> None:
    found = curve(drawn(seed, measure, 23), measure)
    costs, values = np.diff(found.cost_share), np.diff(found.value)
    assert (costs > 0).all()
    assert (values > 0).all() if measure.higher_is_better else (values < 0).all()
    assert (np.diff(np.abs(values / costs)) < 1e-12).all()


@given(st.integers(0, 10_000), MEASURES)
def test_the_order_of_samples_does_not_change_the_curve(seed: int, measure: Measure) -> None:
    values = drawn(seed, measure, 23)
    one, other = curve(values, measure), curve(values[:, ::-1], measure)
    np.testing.assert_allclose(one.cost_share, other.cost_share, atol=1e-12)
    np.testing.assert_allclose(one.value, other.value, atol=1e-12)


@given(st.integers(0, 10_000), MEASURES)
def test_value_at_and_cost_share_for_are_inverse(seed: int, measure: Measure) -> None:
    found = curve(drawn(seed, measure, 23), measure)
    for share in np.linspace(found.cost_share[0], found.cost_share[-1], 5):
        assert found.cost_share_for(found.value_at(share)) == pytest.approx(share)


def test_the_curve_matches_a_hand_calculation() -> None:
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], float)
    found = curve(right, ACCURACY)
    np.testing.assert_allclose(9 * found.cost_share, [3, 3 + 2 / 4, 3 + 2 / 4 + 6 / 4])
    np.testing.assert_allclose(found.value, [0.25, 0.5, 0.75])


def test_the_curve_is_a_single_point_if_the_cheapest_exit_is_never_beaten() -> None:
    found = curve(np.ones((3, 4)), ACCURACY)
    assert (found.cost_share.tolist(), found.value.tolist()) == ([3 / 9], [1.0])


@given(
    st.integers(0, 10_000),
    st.sampled_from(["max_softmax", "margin", "patience"]),
    st.lists(st.one_of(st.none(), st.floats(0, 3)), min_size=2, max_size=2),
)
def test_no_policy_beats_the_oracle(
    make: Any, seed: int, score: str, thresholds: list[float | None]
) -> None:
    outputs: ExitOutputs = make(seed)
    found = oracle_curve(outputs.correct.astype(float), outputs.own_path_cost(), 140.0, ACCURACY)
    policy = ExitPolicy(
        score=find_score(score), thresholds=tuple(thresholds), names=tuple(outputs.names)
    )
    right = (policy.answers(outputs).argmax(axis=1) == outputs.labels).mean()
    assert right <= found.value_at(policy.cost(outputs).mean() / 140) + 1e-12
    assert (
        outputs.correct.mean(axis=1)
        <= [found.value_at(cost) + 1e-12 for cost in outputs.own_path_cost() / 140]
    ).all()
