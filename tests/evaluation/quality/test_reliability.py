import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.evaluation.quality import Reliability, reliability


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
    assert found.debiased_ece == pytest.approx(0, abs=1e-12)


def test_two_bins_by_hand() -> None:
    sure = np.array([0.6, 0.6, 0.9, 0.9])
    found = reliability(two_classes(sure), np.array([1, 1, 1, 0], bool), bins=2)
    np.testing.assert_allclose(found.confidence, [0.6, 0.9])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
    assert found.ece == pytest.approx((0.4 + 0.4) / 2)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_order_of_samples_changes_nothing(seed: int, bins: int) -> None:
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


def test_debiasing_takes_off_part_of_what_chance_adds() -> None:
    random = np.random.default_rng(3)
    plain, debiased = [], []
    for _ in range(40):
        sure = random.uniform(0.5, 0.99, 500)
        found = reliability(two_classes(sure), random.random(500) < sure)
        plain.append(found.ece)
        debiased.append(found.debiased_ece)
    assert np.mean(plain) > 0.03
    assert np.mean(debiased) < 0.7 * np.mean(plain)


def test_a_large_error_is_left_nearly_whole() -> None:
    bins = Reliability(np.array([0.9, 0.99]), np.array([0.3, 0.5]), np.array([200, 200]))
    assert bins.debiased_ece == pytest.approx(bins.ece, abs=1e-3)
