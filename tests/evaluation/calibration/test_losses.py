from collections.abc import Callable

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from offramp.evaluation.calibration.losses import losses_of
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
    rows = np.arange(2)
    assert_array_equal(losses_of(outputs, "max_drop", rows).values, [[0, 1, -1, 0], [0] * 4])
    disagree = losses_of(outputs, "max_disagreement", rows)
    assert_array_equal(disagree.values, [[0, 1, 1, 1], [0] * 4])
    assert disagree.bound is None


def test_rises_are_clipped_at_the_largest_on_the_order_rows(make_values: Make) -> None:
    values = make_values(101)
    errors = np.abs(values.outputs[:, :, 0] - np.asarray(values.labels, np.float64))
    rises, order = errors - errors[-1], np.arange(0, 101, 9)
    losses = losses_of(values, "max_rise", order)
    assert losses.bound is not None
    assert losses.bound == np.abs(rises[:, order]).max()
    assert_allclose(losses.values, np.clip(rises, -losses.bound, losses.bound), atol=1e-8)
    assert losses.bound / 2 < losses.scale <= losses.bound
    assert losses_of(values, "max_rise", order, 0.3).values.max() <= 0.3


def test_sums_of_rises_are_the_same_in_any_order(make_values: Make) -> None:
    losses = losses_of(make_values(999), "max_rise", np.arange(50)).values[0]
    moved = np.random.default_rng(0).permutation(losses)
    assert np.cumsum(losses)[-1] == np.cumsum(moved)[-1]


def test_a_final_exit_alone_still_has_a_bound(make_values: Make) -> None:
    losses = losses_of(make_values(9), "max_rise", np.arange(0))
    assert losses.bound == 1
