import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluation.quality import auroc, nothing_lost

ROWS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


def split(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(s) for s, _ in rows]), np.array([positive for _, positive in rows])


@given(ROWS)
def test_it_is_the_share_of_pairs_in_order_with_ties_half(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    gaps = scores[positive][:, np.newaxis] - scores[~positive]
    assert auroc(scores, positive) == pytest.approx(((gaps > 0) + (gaps == 0) / 2).mean())


@given(ROWS)
def test_a_rising_transform_changes_nothing(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    assert auroc(np.exp(scores) + 3, positive) == auroc(scores, positive)


@given(ROWS)
def test_turned_scores_give_the_rest(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    turned, straight = auroc(-scores, positive), auroc(scores, positive)
    assert turned == pytest.approx(1 - (straight or 0))


def test_constant_scores_tell_nothing() -> None:
    assert auroc(np.full(7, 0.3), np.arange(7) < 2) == 0.5


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_alone_has_no_area(positive: bool) -> None:
    assert auroc(np.arange(4.0), np.full(4, positive)) is None


def test_leaving_loses_where_only_a_later_exit_is_right() -> None:
    right = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], bool)
    wanted = np.array([[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(nothing_lost(right), wanted)


@given(st.integers(0, 1000))
def test_at_the_last_exit_nothing_is_ever_lost(seed: int) -> None:
    right = np.random.default_rng(seed).random((3, 11)) < 0.5
    assert nothing_lost(right)[-1].all()
