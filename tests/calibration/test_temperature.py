from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from offramp.calibration.temperature import (
    HIGHEST,
    LOWEST,
    fit_temperature,
    fit_temperatures,
)
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs


def drawn(seed: int, samples: int = 61, classes: int = 5) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    return random.normal(size=(samples, classes)) + 2 * np.eye(classes)[labels], labels


def sampled(temperature: float, samples: int = 60_000) -> tuple[Any, Any]:
    """Labels that follow the softmax of the logits divided by this temperature."""
    random = np.random.default_rng(7)
    logits = 3 * random.normal(size=(samples, 4))
    gumbel = random.gumbel(size=logits.shape)
    return logits, (logits / temperature + gumbel).argmax(axis=1)


def nll(logits: Any, labels: Any, temperature: float) -> float:
    """Mean negative log likelihood in nats."""
    scaled = logits / temperature
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())


@given(st.integers(0, 10_000), st.floats(-2.0, 2.0))
def test_no_other_temperature_has_a_smaller_loss(seed: int, shift: float) -> None:
    logits, labels = drawn(seed)
    fitted = fit_temperature(logits, labels)
    assert nll(logits, labels, fitted) <= nll(logits, labels, fitted * 10**shift) + 1e-12


@given(st.integers(0, 10_000), st.floats(0.5, 4.0))
def test_scaled_logits_scale_the_temperature(seed: int, factor: float) -> None:
    logits, labels = drawn(seed)
    once, scaled = fit_temperature(logits, labels), fit_temperature(factor * logits, labels)
    assert scaled == pytest.approx(factor * once, rel=1e-7)


@given(st.integers(0, 10_000))
def test_the_order_of_rows_does_not_change_the_temperature(seed: int) -> None:
    logits, labels = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert fit_temperature(logits[order], labels[order]) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-8
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_true_temperature_is_recovered(temperature: float) -> None:
    assert fit_temperature(*sampled(temperature)) == pytest.approx(temperature, rel=0.03)


def test_logits_that_are_always_right_get_the_lowest_temperature() -> None:
    labels = np.array([0, 2, 1])
    assert fit_temperature(np.eye(3)[labels], labels) == LOWEST


def test_logits_that_are_worse_than_guessing_get_the_highest_temperature() -> None:
    labels = np.array([0, 2, 1])
    assert fit_temperature(-np.eye(3)[labels], labels) == HIGHEST


def test_uninformative_logits_get_temperature_one() -> None:
    assert fit_temperature(np.full((3, 4), 2.0), np.array([0, 1, 3])) == 1.0


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]])
    assert LOWEST <= fit_temperature(logits, np.array([0, 1, 1])) <= HIGHEST


def test_every_early_exit_has_its_own_temperature() -> None:
    logits, labels = drawn(1)
    outputs = ExitOutputs(
        outputs=np.stack([logits, 3 * logits, logits]).astype(np.float32),
        labels=labels,
        stage_flops=np.array([1, 1, 1]),
        branch_flops=np.array([1, 1, 0]),
    )
    one, other = fit_temperatures(outputs)
    assert other == pytest.approx(3 * one, rel=1e-4)


def test_a_regression_has_no_temperature() -> None:
    outputs = ExitOutputs(
        outputs=np.zeros((2, 3, 1), np.float32),
        labels=np.zeros(3),
        task="regression",
        stage_flops=np.array([1, 1]),
        branch_flops=np.array([1, 0]),
    )
    with pytest.raises(PlanError, match="regression"):
        fit_temperatures(outputs)
