"""Temperature scaling: one positive number per exit that its logits are divided by."""

import math

import numpy as np
from numpy.typing import NDArray

from offramp.errors import PlanError
from offramp.outputs import ExitOutputs

LOWEST, HIGHEST = 0.01, 100.0
_STEPS = 80  # bisection alone would need 40; Newton usually takes 6
_CLOSE = 1e-10  # of log T


def nll(
    logits: NDArray[np.floating], labels: NDArray[np.generic], temperature: float = 1.0
) -> float:
    """Mean negative log likelihood in nats, from logits (N, K) and labels (N,)."""
    over = _over_label(logits, labels) / temperature
    top = over.max(axis=1)
    return float((top + np.log(np.exp(over - top[:, np.newaxis]).sum(axis=1))).mean())


def fit_temperatures(
    outputs: ExitOutputs, rows: NDArray[np.int64] | None = None
) -> tuple[float, ...]:
    """The temperature of least log loss for each of the E - 1 early exits (Guo et al. 2017).

    It is fitted on the samples at `rows`, on all where None. Nothing is drawn: the same rows in
    any order give the same bits. An exit that answers all rows right would take a temperature of
    0; it gets 0.01, the lowest allowed.

    Raises:
        PlanError: The task is regression, whose answers have no logits.
    """
    if outputs.task == "regression":
        raise PlanError(
            "a temperature divides logits, and these outputs are a regression's. Leave it out, "
            "or use the scores 'agreement' or 'given'."
        )
    chosen = np.arange(len(outputs.labels)) if rows is None else rows
    labels = outputs.labels[chosen]
    return tuple(fit_temperature(logits[chosen], labels) for logits in outputs.outputs[:-1])


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.generic]) -> float:
    """The temperature, 0.01 to 100, of least log loss for logits (N, K) and labels (N,).

    The loss is convex in 1 / T, so its slope changes sign once: Newton steps in 1 / T, bisection
    of log T where a step would leave the bracket. The order of the rows does not show in it.
    """
    over = _in_own_order(_over_label(logits, labels))
    low, high = math.log(1 / HIGHEST), math.log(1 / LOWEST)
    if _slope(over, math.exp(low))[0] >= 0:
        return HIGHEST if over.any() else 1.0
    if _slope(over, math.exp(high))[0] <= 0:
        return LOWEST
    place = 0.0
    for _ in range(_STEPS):
        slope, bend = _slope(over, math.exp(place))
        low, high = (place, high) if slope < 0 else (low, place)
        following = _newton(math.exp(place), slope, bend)
        if not low < following < high:
            following = (low + high) / 2
        if abs(following - place) < _CLOSE:
            break
        place = following
    return math.exp(-place)


def _over_label(logits: NDArray[np.floating], labels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Logits (N, K) minus the labelled class's."""
    wide = logits.astype(np.float64)
    over: NDArray[np.float64] = wide - wide[np.arange(len(wide)), labels.astype(np.int64)][:, None]
    return over


def _in_own_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (N, K) in an order that follows from themselves, so that sums over them do too."""
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    ordered: NDArray[np.float64] = rows[np.argsort(whole.ravel(), kind="stable")]
    return ordered


def _slope(over: NDArray[np.float64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean log loss by the inverse temperature."""
    powers = np.exp(inverse * (over - over.max(axis=1, keepdims=True)))
    powers /= powers.sum(axis=1, keepdims=True)
    mean = np.einsum("nk,nk->n", powers, over)
    square = np.einsum("nk,nk,nk->n", powers, over, over)
    return float(mean.mean()), float((square - mean**2).mean())


def _newton(inverse: float, slope: float, bend: float) -> float:
    """Log of the inverse temperature that a Newton step leads to; -inf where there is none."""
    step = inverse - slope / bend if bend > 0 else 0.0
    return math.log(step) if step > 0 else -math.inf
