import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from offramp.calibration.risks import (
    ClusterSums,
    Disagreements,
    Drops,
    Evidence,
    Losses,
    Sample,
    bet_of,
    evidence_of,
    losses_of,
    needed,
    upper_bound,
)
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs

LOSSES = np.random.default_rng(0).normal(0.01, 0.2, 400)
Make = Callable[..., ExitOutputs]
ONES = np.ones(400)
RISE, DROP = Losses("max_rise", LOSSES, 1.0), Losses("max_drop", LOSSES)
KINDS: list[Evidence] = [
    Disagreements(500, 12),
    Drops(500, 17, 9),
    ClusterSums(LOSSES, ONES, 1.0, 0.4, 0.99),
]
NOTHING: list[Evidence] = [
    Disagreements(0, 0),
    Drops(0, 0, 0),
    ClusterSums(LOSSES[:0], ONES[:0], 1.0, 0.0, 0.9),
]


@pytest.mark.parametrize("evidence", KINDS)
def test_the_upper_bound_is_the_smallest_limit_that_the_test_certifies(evidence: Evidence) -> None:
    bound = upper_bound(evidence, 0.1)
    assert evidence.p_value(bound, 0.1) <= 0.1 < evidence.p_value(bound - 1e-4, 0.1)
    assert bound > evidence.estimate


@pytest.mark.parametrize("evidence", KINDS)
def test_the_needed_number_certifies_and_a_slightly_smaller_one_does_not(
    evidence: Evidence,
) -> None:
    limit = evidence.estimate + 0.01
    number = needed(evidence, limit, 0.05)
    assert evidence.enough(int(number), limit, 0.05)
    assert not evidence.enough(int(0.9 * number), limit, 0.05)


@pytest.mark.parametrize("evidence", KINDS)
def test_no_number_certifies_a_limit_below_the_mean(evidence: Evidence) -> None:
    assert needed(evidence, evidence.estimate, 0.05) == math.inf


def test_without_losses_the_needed_number_is_that_of_the_exact_binomial() -> None:
    assert needed(Disagreements(10, 0), 0.01, 0.05) == math.ceil(math.log(0.05) / math.log(0.99))


@pytest.mark.parametrize("evidence", NOTHING)
def test_an_empty_sample_shows_nothing(evidence: Evidence) -> None:
    assert evidence.p_value(0.3, 0.05) == 1
    assert evidence.estimate == 0
    assert evidence.num == 0


@given(
    size=st.integers(2, 60),
    level=st.floats(0.01, 0.5),
    bound=st.floats(0.1, 9),
    rows=st.integers(1, 20),
)
@settings(max_examples=40, deadline=None)
def test_no_single_cluster_can_ruin_a_bet(size: int, level: float, bound: float, rows: int) -> None:
    highest = 0.99 / (bound * rows)
    bet = bet_of(Sample(np.zeros(size), None), size, level, highest)
    worst = ClusterSums(
        np.full(size, bound * rows), np.full(size, float(rows)), bound, bet, highest
    )
    assert worst.p_value(1e-9, level) == 1
    assert np.isfinite(np.log1p(-bet * bound * rows))


def test_a_bet_depends_only_on_the_order_rows() -> None:
    before, tested = Sample(LOSSES[:150], None), LOSSES[150:]
    plain = evidence_of(RISE, Sample(tested, None), before, 0.05, 1)
    other = evidence_of(RISE, Sample(np.sort(tested)[::-1] / 7, None), before, 0.05, 1)
    assert isinstance(plain, ClusterSums)
    assert isinstance(other, ClusterSums)
    assert plain.bet == other.bet > 0


def test_losses_are_counted_by_sign() -> None:
    losses = np.array([1.0, 0, -1, 1, 1, 0])
    rows, absolute = Sample(losses, None), Sample(np.abs(losses), None)
    disagree = Losses("max_disagreement", losses)
    assert evidence_of(DROP, rows, rows, 0.05, 1) == Drops(6, 3, 1)
    assert evidence_of(disagree, absolute, rows, 0.05, 1) == Disagreements(6, 4)


def test_the_losses_and_rows_of_a_cluster_are_summed() -> None:
    rows = Sample(np.array([1.0, 0, -1, 1, 1, 0]), np.array([4, 7, 4, 4, 9, 9]))
    found = evidence_of(DROP, rows, rows, 0.05, 3)
    assert isinstance(found, ClusterSums)
    np.testing.assert_array_equal(found.sums, [1, 0, 1])
    np.testing.assert_array_equal(found.sizes, [3, 1, 2])
    assert found.num == 3
    assert found.estimate == 2 / 6


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


def test_rises_are_clipped_at_the_given_bound(make_values: Make) -> None:
    values = make_values(101)
    errors = np.abs(values.outputs[:, :, 0] - np.asarray(values.labels, np.float64))
    losses = losses_of(values, "max_rise", 0.3)
    assert losses.bound == 0.3
    assert_allclose(losses.values, np.clip(errors - errors[-1], -0.3, 0.3), atol=1e-8)
    assert losses.values.max() <= 0.3


def test_max_rise_without_a_loss_bound_is_refused_with_the_reason(make_values: Make) -> None:
    with pytest.raises(PlanError, match="rare, huge error"):
        losses_of(make_values(9), "max_rise")
