from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit

from offramp import cost
from offramp.calibration.order import OrderRows, _logistic, learned_states, walk

STAGES, BRANCHES = [20, 30, 50], [2, 3, 0]


def costs(enabled: NDArray[np.bool_]) -> NDArray[np.float64]:
    return cost.with_passed(STAGES, BRANCHES, np.append(enabled, True)) / 100


def order_rows(seed: int, num: int = 61, strata: int = 1, **changes: Any) -> OrderRows:
    random = np.random.default_rng(seed)
    losses = random.choice([-1.0, 0, 1], (3, num), p=[0.05, 0.75, 0.2])
    losses[-1] = 0
    first = random.integers(1, 9, (2, num))
    given: dict[str, Any] = {
        "first": first,
        "surprise": first - 4.0,
        "num_rungs": np.array([7, 7]),
        "losses": losses,
        "strata": random.integers(0, strata, num),
        "units": np.arange(num),
        "costs": costs,
    }
    return OrderRows(**(given | changes))


@given(seed=st.integers(0, 500), strata=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_each_state_lets_more_rows_leave_and_saves_more(seed: int, strata: int) -> None:
    rows = order_rows(seed, strata=strata)
    states = learned_states(rows)
    assert np.all(np.diff(states, axis=0) >= 0)
    saved = [
        rows.judged(s, leaves)[0]
        for s, leaves in zip(states, walk(rows.first, states), strict=True)
    ]
    assert np.all(np.diff([0.0, *saved]) >= 0.01)


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_walking_through_states_gives_the_same_exits_as_each_state_alone(seed: int) -> None:
    rows = order_rows(seed)
    states = learned_states(rows)
    for state, leaves in zip(states, walk(rows.first, states), strict=True):
        fired = np.vstack([rows.first <= state[:, np.newaxis], np.ones((1, 61), bool)])
        np.testing.assert_array_equal(leaves, fired.argmax(axis=0))


def test_rungs_without_losses_come_before_rungs_with_losses() -> None:
    first = np.tile(np.repeat([1, 2, 3], 40), (2, 1))
    first[1] = 4
    losses = np.zeros((3, 120))
    losses[0, 80:] = 1
    rows = order_rows(
        0, 120, first=first, surprise=first * 1.0, losses=losses, num_rungs=np.array([3, 3])
    )
    np.testing.assert_array_equal(learned_states(rows)[:2], [[1, 0], [2, 0]])


def test_an_exit_that_is_confident_when_wrong_comes_late_or_never() -> None:
    random = np.random.default_rng(0)
    first = random.integers(1, 9, (2, 400))
    losses = np.zeros((3, 400))
    losses[0] = (first[0] <= 3) & (random.random(400) < 0.5)
    losses[1] = (first[1] >= 7) & (random.random(400) < 0.5)
    states = learned_states(order_rows(0, 400, first=first, surprise=first - 4.0, losses=losses))
    assert states[0, 0] == 0
    assert states[0, 1] > 0


def test_a_branch_that_costs_more_than_it_saves_is_never_enabled() -> None:
    def expensive(enabled: NDArray[np.bool_]) -> NDArray[np.float64]:
        return cost.with_passed(STAGES, [200, 3, 0], np.append(enabled, True)) / 100

    states = learned_states(order_rows(1, costs=expensive))
    assert states[:, 0].max() == 0
    assert states[:, 1].max() > 0


@pytest.mark.parametrize("num", [1, 2])
def test_an_order_can_be_learned_from_few_rows(num: int) -> None:
    assert learned_states(order_rows(0, num)).shape[1] == 2


@pytest.mark.parametrize("tie", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("seed", range(20))
def test_the_gradient_is_zero_at_the_fitted_risk_curve(seed: int, tie: float) -> None:
    random = np.random.default_rng(seed)
    surprise = np.sort(random.normal(0, 2, 23))
    line = np.stack([np.ones(23), surprise], axis=1)
    design = np.hstack([np.tile(line, (3, 1)), np.kron(np.eye(3), line)])  # three exits
    num = random.poisson(100.0, 69).astype(float)
    lost = random.binomial(num.astype(int), expit(0.3 * design[:, 1])).astype(float)
    found = _logistic(design, num, lost, tie)
    centre = np.append([-4.0, 0.7], np.zeros(6))
    pull = np.append([0.02, 0.02], np.full(6, tie)) * (found - centre)
    slope = design.T @ (num * expit(design @ found) - lost) + pull
    np.testing.assert_allclose(slope, 0, atol=1e-3)
