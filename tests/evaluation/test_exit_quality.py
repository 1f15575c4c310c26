import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluation.exit_quality import auroc, nothing_lost, reliability


def two_classes(confidence: np.ndarray) -> np.ndarray:
    """Logits (N, 2) whose maximum softmax is the confidence, for class 0."""
    return np.stack([np.log(confidence / (1 - confidence)), np.zeros_like(confidence)], axis=1)


@given(st.lists(st.integers(6, 11), min_size=1, max_size=5, unique=True), st.integers(1, 20))
def test_perfectly_calibrated_confidence_has_no_error(twelfths: list[int], bins: int) -> None:
    sure = np.repeat(np.array(twelfths) / 12, 12)
    right = np.concatenate([np.arange(12) < part for part in twelfths])
    found = reliability(two_classes(sure), right, bins=bins)
    assert found.ece == pytest.approx(0, abs=1e-12)


def test_two_bins_match_a_hand_calculation() -> None:
    sure = np.array([0.6, 0.6, 0.9, 0.9])
    found = reliability(two_classes(sure), np.array([1, 1, 1, 0], bool), bins=2)
    np.testing.assert_allclose(found.confidence, [0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
    assert found.ece == pytest.approx((0.4 + 0.4) / 2)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_order_of_samples_does_not_change_the_bins(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    logits, right = random.integers(0, 3, (37, 4)), random.random(37) < 0.5
    order = random.permutation(37)
    one = reliability(logits.astype(np.float32), right, bins=bins)
    other = reliability(logits[order].astype(np.float32), right[order], bins=bins)
    np.testing.assert_array_equal(one.counts, other.counts)
    assert one.ece == pytest.approx(other.ece, abs=1e-12)


@given(st.integers(0, 1000), st.integers(1, 50))
def test_every_sample_is_in_one_bin_and_no_bin_is_empty(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    found = reliability(random.normal(size=(37, 4)).astype(np.float32), np.ones(37, bool), 1, bins)
    assert found.counts.sum() == 37
    assert 0 < found.counts.min() <= found.counts.max() <= found.counts.min() + 1
    assert len(found.counts) == min(bins, 37)


def test_equal_confidences_share_a_bin() -> None:
    found = reliability(np.ones((30, 3), np.float32), np.arange(30) < 10, bins=15)
    assert found.counts.tolist() == [30]
    assert found.ece == pytest.approx(0)


def test_a_temperature_changes_confidences_but_not_bins() -> None:
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
def test_the_auroc_is_the_share_of_ordered_pairs_with_ties_counting_half(
    rows: list[tuple[int, bool]],
) -> None:
    scores, positive = split(rows)
    gaps = scores[positive][:, np.newaxis] - scores[~positive]
    assert auroc(scores, positive) == pytest.approx(((gaps > 0) + (gaps == 0) / 2).mean())


@given(ROWS)
def test_an_increasing_transform_of_scores_does_not_change_the_auroc(
    rows: list[tuple[int, bool]],
) -> None:
    scores, positive = split(rows)
    assert auroc(np.exp(scores) + 3, positive) == auroc(scores, positive)


@given(ROWS)
def test_negated_scores_give_one_minus_the_auroc(rows: list[tuple[int, bool]]) -> None:
    scores, positive = split(rows)
    turned, straight = auroc(-scores, positive), auroc(scores, positive)
    assert turned == pytest.approx(1 - (straight or 0))


def test_constant_scores_have_an_auroc_of_one_half() -> None:
    assert auroc(np.full(7, 0.3), np.arange(7) < 2) == 0.5


@pytest.mark.parametrize("positive", [True, False])
def test_the_auroc_is_none_if_all_samples_have_one_outcome(positive: bool) -> None:
    assert auroc(np.arange(4.0), np.full(4, positive)) is None


def test_leaving_loses_only_if_a_later_exit_alone_is_right() -> None:
    right = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], bool)
    wanted = np.array([[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]], bool)
    np.testing.assert_array_equal(nothing_lost(right), wanted)


@given(st.integers(0, 1000))
def test_nothing_is_lost_at_the_last_exit(seed: int) -> None:
    right = np.random.default_rng(seed).random((3, 11)) < 0.5
    assert nothing_lost(right)[-1].all()
