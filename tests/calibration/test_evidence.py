import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.calibration.evidence import (
    Disagreements,
    Drops,
    Evidence,
    Rises,
    bet_of,
    evidence_of,
    needed,
    roughly_needed,
    upper_bound,
)

LOSSES = np.random.default_rng(0).normal(0.01, 0.2, 400)
KINDS: list[Evidence] = [Disagreements(500, 12), Drops(500, 17, 9), Rises(LOSSES, 1.0, 0.8)]


@pytest.mark.parametrize("evidence", KINDS)
def test_a_bound_is_where_the_test_begins_to_certify(evidence: Evidence) -> None:
    bound = upper_bound(evidence, 0.1)
    assert evidence.p_value(bound, 0.1) <= 0.1 < evidence.p_value(bound - 1e-4, 0.1)
    assert bound > evidence.estimate


@pytest.mark.parametrize("evidence", KINDS)
def test_what_is_needed_suffices_and_little_less_does_not(evidence: Evidence) -> None:
    limit = evidence.estimate + 0.01
    number = needed(evidence, limit, 0.05)
    assert evidence.enough(int(number), limit, 0.05)
    assert not evidence.enough(int(0.9 * number), limit, 0.05)
    assert 0.2 < roughly_needed(evidence, limit, 0.05) / number < 5


@pytest.mark.parametrize("evidence", KINDS)
def test_no_number_suffices_for_less_than_the_mean(evidence: Evidence) -> None:
    assert needed(evidence, evidence.estimate, 0.05) == math.inf
    assert roughly_needed(evidence, evidence.estimate, 0.05) == math.inf


def test_without_a_loss_the_needed_number_is_that_of_the_exact_binomial() -> None:
    assert needed(Disagreements(10, 0), 0.01, 0.05) == math.ceil(math.log(0.05) / math.log(0.99))


@pytest.mark.parametrize("evidence", [Disagreements(0, 0), Drops(0, 0, 0), Rises(LOSSES[:0], 1, 0)])
def test_no_losses_show_nothing(evidence: Evidence) -> None:
    assert evidence.p_value(0.3, 0.05) == 1
    assert evidence.estimate == 0
    assert evidence.num == 0


@given(size=st.integers(2, 60), level=st.floats(0.01, 0.5), bound=st.floats(0.1, 9))
@settings(max_examples=40, deadline=None)
def test_no_bet_can_be_ruined_by_one_loss(size: int, level: float, bound: float) -> None:
    bet = bet_of(np.zeros(size), size, level, bound)
    worst = Rises(np.full(size, bound), bound, bet)
    assert worst.p_value(0.0, level) == 1
    assert np.isfinite(np.log1p(bet * (0.5 - 1)))


def test_a_bet_looks_at_other_rows_only() -> None:
    before, tested = LOSSES[:150], LOSSES[150:]
    plain = evidence_of("max_rise", tested, before, 0.05, 1.0)
    other = evidence_of("max_rise", np.sort(tested)[::-1] / 7, before, 0.05, 1.0)
    assert isinstance(plain, Rises)
    assert isinstance(other, Rises)
    assert plain.bet == other.bet > 0


def test_losses_are_counted_by_their_sign() -> None:
    losses = np.array([1.0, 0, -1, 1, 1, 0])
    assert evidence_of("max_drop", losses, losses, 0.05, None) == Drops(6, 3, 1)
    assert evidence_of("max_disagreement", np.abs(losses), losses, 0.05, None) == Disagreements(
        6, 4
    )
