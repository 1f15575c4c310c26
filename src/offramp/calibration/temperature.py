"""Temperature scaling: divide the logits of each exit by one positive number."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from offramp.errors import PlanError
from offramp.outputs import ExitOutputs

LOWEST, HIGHEST = 0.01, 100.0
_CLOSE = 1e-10  # tolerance of log T


def fit_temperatures(
    outputs: ExitOutputs, rows: NDArray[np.int64] | None = None
) -> tuple[float, ...]:
    """Fit the temperature of least log loss for each of the E - 1 early exits (Guo et al. 2017).

    Fits on the samples at `rows`, or on all if None. The result is deterministic and does not
    depend on the order of the rows. An exit that answers every row correctly would get a
    temperature of 0; it gets 0.01, the smallest allowed.

    Raises:
        PlanError: The task is regression, which has no logits.
    """
    if outputs.task == "regression":
        raise PlanError(
            "a temperature divides logits, but these outputs are of a regression, which has "
            "none. Leave it out, and use the scores 'agreement' or 'given'."
        )
    chosen = np.arange(len(outputs.labels)) if rows is None else rows
    labels = outputs.labels[chosen]
    return tuple(fit_temperature(logits[chosen], labels) for logits in outputs.outputs[:-1])


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.generic]) -> float:
    """Fit the temperature (0.01 to 100) of least log loss for logits (N, K) and labels (N,).

    The loss is convex in 1 / T, so its derivative changes sign at most once. The result does not
    depend on the order of the rows.
    """
    over = _in_own_order(_over_label(logits, labels))

    def slope(log_inverse: float) -> float:
        return _slope(over, math.exp(log_inverse))

    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    if slope(low) >= 0:
        return HIGHEST if over.any() else 1.0
    if slope(high) <= 0:
        return LOWEST
    return math.exp(-float(brentq(slope, low, high, xtol=_CLOSE)))


def _over_label(logits: NDArray[np.floating], labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Logits (N, K) minus the logit of the labelled class."""
    wide = logits.astype(np.float64)
    over: NDArray[np.float64] = wide - wide[np.arange(len(wide)), labels.astype(np.int64)][:, None]
    return over


def _in_own_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sort rows (N, K) by their values, so that sums do not depend on the order they came in."""
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    ordered: NDArray[np.float64] = rows[np.argsort(whole.ravel(), kind="stable")]
    return ordered


def _slope(over: NDArray[np.float64], inverse: float) -> float:
    """Derivative of the mean log loss with respect to the inverse temperature."""
    powers = np.exp(inverse * (over - over.max(axis=1, keepdims=True)))
    powers /= powers.sum(axis=1, keepdims=True)
    return float(np.einsum("nk,nk->n", powers, over).mean())
