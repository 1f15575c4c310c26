"""Rivals: other ways to set thresholds on the same outputs, most of them without a promise."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy
from scipy.stats import binom
from torch import Tensor, nn

from offramp.policy import leaving
from promises.pool import Floats, Pool, Thresholds

STEPS = 100
ORDER_SHARE = 0.3  # as in offramp's calibrate


def in_sample_greedy(drawn: Pool, max_drop: float) -> Thresholds:
    """Lower each exit's threshold in turn as long as the drop on these rows stays within.

    The steps are 100 quantiles of the exit's scores among the rows that still wait.
    """
    waiting, drop = np.ones(len(drawn), bool), 0.0
    thresholds: list[float | None] = []
    for scores, losses in zip(drawn.scores, drawn.losses[:-1], strict=True):
        threshold, added = _lowered(scores[waiting], losses[waiting] / len(drawn), max_drop - drop)
        thresholds.append(threshold)
        if threshold is not None:
            waiting &= scores < threshold
            drop += added
    return tuple(thresholds)


def _lowered(scores: Floats, losses: Floats, left: float) -> tuple[float | None, float]:
    """The last threshold before the drop passes what is left of it, and the drop it adds."""
    if not len(scores):
        return None, 0.0
    levels = np.unique(np.quantile(scores, np.linspace(0, 1, STEPS)))[::-1]
    order = np.argsort(-scores, kind="stable")
    drops = np.cumsum(losses[order])
    added = drops[np.searchsorted(-scores[order], -levels, side="right") - 1]
    beyond = np.flatnonzero(added > left + 1e-12)
    steps = int(beyond[0]) if len(beyond) else len(levels)
    return (float(levels[steps - 1]), float(added[steps - 1])) if steps else (None, 0.0)


def hoeffding_bentkus(drawn: Pool, max_drop: float, delta: float, seed: int) -> Thresholds:
    """Plain fixed-sequence testing (Learn then Test, Angelopoulos et al. 2021).

    Candidates are 101 thresholds common to all exits, in the order of their risk on 30 % of the
    rows; each is tested on the others by the Hoeffding-Bentkus bound of the share of rows that
    only the last exit gets right, which is never less than the drop.
    """
    num = len(drawn)
    order = np.random.default_rng(seed).random(num) < ORDER_SHARE
    grid = np.unique(np.quantile(drawn.scores[:, order], np.linspace(0, 1, STEPS + 1)))[::-1]
    every = [leaving(drawn.scores, [level] * drawn.num_early) for level in grid]
    lost = np.array([drawn.losses[leaves, np.arange(num)] > 0 for leaves in every])
    best: tuple[float, Thresholds] = (0.0, (None,) * drawn.num_early)
    for place in np.argsort(lost[:, order].mean(axis=1), kind="stable"):
        if _hoeffding_bentkus(lost[place, ~order], max_drop) > delta:
            break
        thresholds = (float(grid[place]),) * drawn.num_early
        shares = np.bincount(every[place], minlength=drawn.num_early + 1) / num
        best = max(best, (float(shares @ drawn.saving(thresholds)), thresholds))
    return best[1]


def _hoeffding_bentkus(lost: NDArray[np.bool_], limit: float) -> float:
    """p-value that the chance of a loss is above the limit."""
    num, count = len(lost), int(lost.sum())
    mean = count / max(num, 1)
    if mean >= limit:
        return 1.0
    apart = xlogy(mean, mean / limit) + xlogy(1 - mean, (1 - mean) / (1 - limit))
    return float(min(np.exp(-num * apart), np.e * binom.cdf(count, num, limit)))


def earlyon_is_installed() -> bool:
    """Whether the `bench` extra is."""
    return find_spec("earlyon") is not None


class Replay:
    """A model of earlyon's whose inputs are stored logits (B, E, K): each exit gives back its own.

    earlyon weighs exits by its own estimate of FLOPs, which knows no work in a replay and spaces
    the exits evenly. Its accuracy search asks of it only whether a threshold saves anything.
    """

    def __init__(self, exits: int, classes: int) -> None:
        from earlyon import EarlyExitConfig, EarlyExitWrapper, ExitPoint

        early = range(exits - 1)
        points = [ExitPoint(f"exit{exit}", str(exit), classes) for exit in early]
        self.model: Any = EarlyExitWrapper(
            nn.Sequential(*(nn.Identity() for _ in early)),
            {point.name: _Stored(exit) for exit, point in enumerate(points)},
            _Stored(exits - 1),
            EarlyExitConfig("replay", classes, points),
            input_shape=(1, exits, classes, 1),
        )

    def calibrate(self, drawn: Pool, max_drop: float) -> Thresholds:
        """Thresholds of `earlyon.core.thresholds.calibrate_thresholds` on all drawn rows."""
        from earlyon.core.thresholds import calibrate_thresholds

        logits = torch.from_numpy(np.moveaxis(drawn.outputs.outputs, 0, 1).copy())
        labels = torch.from_numpy(drawn.outputs.labels.astype(np.int64))
        result = calibrate_thresholds(self.model, [(logits, labels)], target_accuracy_drop=max_drop)
        chosen = zip(result.thresholds, result.enabled_exits, strict=True)
        return tuple(float(value) if enabled else None for value, enabled in chosen)


class _Stored(nn.Module):
    def __init__(self, exit: int) -> None:
        super().__init__()
        self.exit = exit

    def forward(self, logits: Tensor) -> Tensor:
        """Its exit's logits: (B, E, K, ...) to (B, K, ...)."""
        return logits[:, self.exit]
