import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluation.exit_quality import auroc, nothing_lost, reliability


def two_classes(confidence: np.ndarray) -> np.ndarray:
    """Logits (N, 2) whose maximum softmax is the confidence, for class 0."""
    return np.stack([np.log(confidence / (1 - confidence)), np.zeros_like(confidence)], axis=1)


@given(st.lists(st.integers(6, 11), min_size=1, max_size=5, unique=True), st.integers(1, 20))
def test_confidence_that_is_right_as_often_as_it_says_has_no_error(
    twelfths: list[int], bins: int
) -> None:
    sure = np.repeat(np.array(twelfths) / 12, 12)
    right = np.concatenate([np.arange(12) < part for part in twelfths])
    found = reliability(two_classes(sure), right, bins=bins)
    assert found.ece == pytest.approx(0, abs=1e-12)


def test_two_bins_by_hand() -> None:
    sure = np.array([0.6, 0.6, 0.9, 0.9])
    found = reliability(two_classes(sure), np.array([1, 1, 1, 0], bool), bins=2)
    np.testing.assert_allclose(found.confidence, [0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
    assert found.ece == pytest.approx((0.4 + 0.4) / 2)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_order_of_samples_changes_no_bin(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    logits, right = random.integers(0, 3, (37, 4)), random.random(37) < 0.5
    order = random.permutation(37)
    one = reliability(logits.astype(np.float32), right, bins=bins)
    other = reliability(logits[order].astype(np.float32), right[order], bins=bins)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert one.ece == pytest.approx(other.ece, abs=1e-12)


@given(st.integers(0, 1000), st.integers(1, 50))
def test_bins_hold_every_sample_once_and_none_is_empty(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    found = reliability(random.normal(size=(37, 4)).astype(np.float32), np.ones(37, bool), 1, bins)
    assert found.counts.sum() == 37
    assert 0 < found.counts.min() <= found.counts.max() <= found.counts.min() + 1
    assert len(found.counts) == min(bins, 37)


def test_equal_confidences_share_a_bin() -> None:
    found = reliability(np.ones((30, 3), np.float32), np.arange(30) < 10, bins=15)
    assert found.counts.tolist() == [30]
    assert found.ece == pytest.approx(0)


def test_a_temperature_changes_the_confidence_and_not_the_bins() -> None:
    random = np.random.default_rng(2)
    logits, right = random.normal(size=(40, 3)).astype(np.float32), random.random(40) < 0.4
    sharp, soft = reliability(logits, right, 0.1, 4), reliability(logits, right, 10.0, 4)
    assert (sharp.confidence > soft.confidence).all()


ROWS = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({positive for _, positive in rows}) == 2
)


def split(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(s) for s, _ in rows]), np.array([positive for _, positive in rows])


@given(ROWS)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_half(
    rows: list[tuple[int, bool]],
) -> None:
    scores, positive = split(rows)
    gaps = scores[positive][:, np.newaxis] - scores[~positive]
    assert auroc(scores, positive) == pytest.approx(((gaps > 0) + (gaps == 0) / 2).mean())


@given(ROWS)
def test_a_rising_transform_of_scores_changes_no_area(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    assert auroc(np.exp(scores) + 3, positive) == auroc(scores, positive)


@given(ROWS)
def test_scores_of_the_opposite_sign_give_one_minus_the_area(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    turned, straight = auroc(-scores, positive), auroc(scores, positive)
    assert turned == pytest.approx(1 - (straight or 0))


def test_constant_scores_have_an_area_of_one_half() -> None:
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
