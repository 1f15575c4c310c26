from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.errors import DataError, PlanError
from offramp.outputs import ExitOutputs
from offramp.policy import SCORES, Score, find_score
from offramp.policy.scores import max_softmax


def exits(logits: Sequence[object], **more: object) -> ExitOutputs:
    """Outputs of these logits (E, N, K), of no cost."""
    outputs = np.array(logits, np.float32)
    zeros = np.zeros(len(outputs), np.int64)
    given = {"labels": np.zeros(outputs.shape[1], np.int64), **more}
    return ExitOutputs(outputs=outputs, stage_flops=zeros, branch_flops=zeros, **given)  # type: ignore[arg-type]


def two_classes(*shares: float) -> list[list[float]]:
    """Logits of samples whose first class has these probabilities."""
    return [[np.log(share), np.log(1 - share)] for share in shares]


FINAL = two_classes(0.5, 0.5)


def test_scores_of_probabilities_match_their_formulas() -> None:
    outputs = exits([two_classes(0.8, 0.5), FINAL])
    np.testing.assert_allclose(SCORES["max_softmax"].of(outputs), [[0.8, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(SCORES["margin"].of(outputs), [[0.6, 0.0]], atol=1e-6)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2)) / np.log(2)
    np.testing.assert_allclose(SCORES["entropy"].of(outputs), [[1 - entropy, 0]], atol=1e-6)


def test_patience_counts_consecutive_exits_that_agree() -> None:
    one, two = [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    outputs = exits([[one, two], [one, one], [one, one], [two, two]])
    np.testing.assert_array_equal(SCORES["patience"].of(outputs), [[1, 1], [2, 1], [3, 2]])


def test_agreement_is_minus_the_distance_to_the_previous_exit() -> None:
    values = np.array([[[3.0], [1.0]], [[3.5], [1.0]], [[9.0], [9.0]]])
    outputs = exits(values, labels=np.zeros(2), task="regression")  # type: ignore[arg-type]
    np.testing.assert_array_equal(SCORES["agreement"].of(outputs), [[-np.inf] * 2, [-0.5, 0]])


def test_a_temperature_divides_only_the_logits_of_its_exit() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5, 4))
    warm = exits(np.stack([logits[0] / 2, logits[1], logits[2]]))  # type: ignore[arg-type]
    scaled = SCORES["margin"].of(exits(logits), [2.0, 1.0])  # type: ignore[arg-type]
    np.testing.assert_allclose(scaled, SCORES["margin"].of(warm), rtol=1e-6)


def test_given_scores_are_used_as_they_are_and_must_exist() -> None:
    outputs = exits([FINAL, FINAL], scores=np.array([[0.25, 0.75], [1, 1]]))
    np.testing.assert_array_equal(SCORES["given"].of(outputs), [[0.25, 0.75]])
    with pytest.raises(PlanError, match="error_predictor"):
        SCORES["given"].of(exits([FINAL, FINAL]))


@given(st.integers(0, 2**32 - 1), st.floats(-50, 50))
def test_adding_a_constant_to_all_logits_changes_no_score(seed: int, shift: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(3, 4, 5))
    for name in ("max_softmax", "entropy", "margin"):
        moved = SCORES[name].of(exits(logits + shift))  # type: ignore[arg-type]
        np.testing.assert_allclose(SCORES[name].of(exits(logits)), moved, atol=1e-4)  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 30))
def test_scores_of_probabilities_are_between_0_and_1(seed: int, scale: float) -> None:
    logits = scale * np.random.default_rng(seed).normal(size=(2, 6, 3))
    for name in ("max_softmax", "entropy", "margin"):
        scores = SCORES[name].of(exits(logits))  # type: ignore[arg-type]
        assert scores.min() >= -1e-12
        assert scores.max() <= 1 + 1e-12


def test_a_score_for_the_other_task_is_refused_with_alternatives() -> None:
    values = exits([[[1.0]], [[2.0]]], labels=np.zeros(1), task="regression")
    with pytest.raises(PlanError, match="agreement, given"):
        SCORES["max_softmax"].of(values)


def test_a_nan_score_is_refused_naming_exit_and_sample() -> None:
    broken = Score("mine", lambda seen: np.array([0.5, np.nan]))
    with pytest.raises(DataError, match=r"'mine' is NaN for sample 1 at 'exit 0'"):
        broken.of(exits([FINAL, FINAL]))


def test_an_unknown_score_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match="max_softmax, entropy"):
        find_score("softmax")


LOGITS = arrays(np.float32, (3, 7), elements=st.floats(-50, 50, width=32))


def test_the_maximum_softmax_matches_a_hand_calculation() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(max_softmax(logits), [0.7, 0.5])


@given(LOGITS, st.floats(-1e3, 1e3, width=16))
def test_adding_a_constant_hardly_changes_the_maximum_softmax(
    logits: np.ndarray, shift: float
) -> None:
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(max_softmax(wide + shift), max_softmax(wide), rtol=1e-9)


@given(LOGITS)
def test_the_maximum_softmax_is_between_chance_and_one(logits: np.ndarray) -> None:
    found = max_softmax(logits)
    assert found.dtype == np.float64
    assert np.all((found >= 1 / 7 - 1e-12) & (found <= 1))


def test_huge_logits_do_not_overflow_the_maximum_softmax() -> None:
    assert max_softmax(np.array([[3e38, -3e38]], np.float32)) == pytest.approx(1.0)


def test_a_custom_score_cannot_take_the_name_of_a_built_in_one() -> None:
    with pytest.raises(PlanError, match="'entropy' belongs to a built-in score"):
        find_score(Score("entropy", lambda seen: seen.outputs[-1].max(axis=1)))
    assert find_score(SCORES["entropy"]) is SCORES["entropy"]


def test_a_score_must_be_a_function() -> None:
    function: Any = 3
    with pytest.raises(PlanError, match="'g' needs a function, got 3"):
        Score("g", function)
