from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from offramp.calibration.losses import losses_of
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs

Make = Callable[..., ExitOutputs]


def test_a_drop_is_one_where_only_the_final_exit_is_right() -> None:
    answers = np.array([[0, 1, 2, 0], [0, 2, 1, 1]])  # exits x samples
    outputs = ExitOutputs(
        outputs=np.eye(3, dtype=np.float32)[answers],
        labels=np.array([0, 2, 2, 2]),
        stage_flops=np.array([1, 2]),
        branch_flops=np.array([1, 0]),
    )
    assert_array_equal(losses_of(outputs, "max_drop").values, [[0, 1, -1, 0], [0] * 4])
    disagree = losses_of(outputs, "max_disagreement")
    assert_array_equal(disagree.values, [[0, 1, 1, 1], [0] * 4])
    assert disagree.bound is None


def test_rises_are_clipped_at_the_bound_that_is_given(make_values: Make) -> None:
    values = make_values(101)
    errors = np.abs(values.outputs[:, :, 0] - np.asarray(values.labels, np.float64))
    losses = losses_of(values, "max_rise", 0.3)
    assert losses.bound == 0.3
    assert_allclose(losses.values, np.clip(errors - errors[-1], -0.3, 0.3), atol=1e-8)
    assert losses.bound / 2 < losses.scale <= losses.bound
    assert losses.values.max() <= 0.3


def test_a_rise_without_a_bound_is_refused_with_the_reason(make_values: Make) -> None:
    with pytest.raises(PlanError, match="rare, huge error"):
        losses_of(make_values(9), "max_rise")


def test_sums_of_rises_are_the_same_in_any_order(make_values: Make) -> None:
    losses = losses_of(make_values(999), "max_rise", 2.5).values[0]
    moved = np.random.default_rng(0).permutation(losses)
    assert np.cumsum(losses)[-1] == np.cumsum(moved)[-1]
