import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offramp.evaluation import max_softmax

LOGITS = arrays(np.float32, (3, 7), elements=st.floats(-50, 50, width=32))


def test_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(max_softmax(logits), [0.7, 0.5])


@given(LOGITS, st.floats(-1e3, 1e3, width=16))
def test_a_constant_added_to_all_logits_changes_little(logits: np.ndarray, shift: float) -> None:
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(max_softmax(wide + shift), max_softmax(wide), rtol=1e-9)


@given(LOGITS)
def test_it_lies_between_chance_and_certainty(logits: np.ndarray) -> None:
    found = max_softmax(logits)
    assert found.dtype == np.float64
    assert np.all((found >= 1 / 7 - 1e-12) & (found <= 1))


def test_huge_logits_do_not_overflow() -> None:
    assert max_softmax(np.array([[3e38, -3e38]], np.float32)) == pytest.approx(1.0)
