"""Quality of each exit: its value, its calibration, and how well its scores rank samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.temperature import fit_temperature
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy import Score
from offramp.policy.scores import max_softmax
from offramp.record import Record


@dataclass(frozen=True, eq=False)
class Reliability(Record):
    """Reliability in bins of equal mass over the maximum softmax; empty bins are left out.

    Attributes:
        confidence: (B,) mean maximum softmax in each bin.
        accuracy: (B,) share of right answers in each bin.
        counts: (B,) number of samples in each bin.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean absolute gap between confidence and accuracy, 0 to 1.

        It is biased upwards if there are few samples.
        """
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.counts))

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"ece": self.ece, "bins": super().as_json()}


def reliability(
    logits: NDArray[np.float32],
    right: NDArray[np.bool_],
    temperature: float = 1.0,
    bins: int = 15,
) -> Reliability:
    """Compute the bins of one exit from its logits (N, K) and whether it is right (N,).

    Bins hold equal numbers of samples, except that equal confidences share a bin.
    """
    sure = max_softmax(logits.astype(np.float64) / temperature)
    share = (_midranks(sure) - 0.5) / len(sure)
    _, place, counts = np.unique(
        (bins * share).astype(np.int64), return_inverse=True, return_counts=True
    )
    return Reliability(
        np.bincount(place, sure) / counts, np.bincount(place, right) / counts, counts
    )


def nothing_lost(right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether going on would gain nothing: this exit is right or no later one is, (E, N).

    This is the target of failure prediction for early exits (EEFP 2026). At the last exit it is
    true for every sample.
    """
    from_here_on: NDArray[np.bool_] = np.logical_or.accumulate(right[::-1])[::-1]
    later = np.concatenate([from_here_on[1:], np.zeros_like(right[:1])])
    lost: NDArray[np.bool_] = later & ~right
    return ~lost


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive scores above a negative (ties half); None if one is missing."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    # The rank sum of the positives minus its minimum is the number of ordered pairs (Mann-Whitney
    # U).
    above = _midranks(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


@dataclass(frozen=True, eq=False)
class ExitQuality(Record):
    """Quality of one exit on the evaluated samples.

    Attributes:
        name: Name of its cut, or of the last exit.
        value: Accuracy (0 to 1) or mean absolute error.
        rmse: Root of the mean squared error; None for accuracy.
        cost: Cost of leaving here on its own path, in the unit of the Quality.
        cost_with_passed: The same, including the branches passed on the way.
        temperature: Temperature fitted on other rows, if these were given.
        auroc: By score: how well it separates samples where going on would gain nothing (this exit
            is right, or no later one is) from the others. None if all samples are the same, as at
            the last exit.
        before: Reliability of the maximum softmax; None for a regression.
        after: The same with the logits divided by `temperature`.
    """

    name: str
    value: float
    rmse: float | None
    cost: float
    cost_with_passed: float
    temperature: float | None
    auroc: Mapping[str, float | None]
    before: Reliability | None
    after: Reliability | None


def exit_qualities(
    outputs: ExitOutputs,
    scores: Sequence[Score],
    others: ExitOutputs | None,
    unit: CostUnit,
    values: NDArray[np.float64],
) -> tuple[ExitQuality, ...]:
    """Evaluate every exit from the measure of all answers (E, N); fit temperatures on `others`."""
    own, passed = outputs.own_path_cost(unit), outputs.with_passed_cost(unit)
    areas = {score.name: _areas(outputs, score) for score in scores}
    temperatures = [
        None if others is None else fit_temperature(others.outputs[exit], others.labels)
        for exit in range(len(outputs.names))
    ]
    return tuple(
        ExitQuality(
            name,
            float(values[exit].mean()),
            outputs.measure.root(values[exit]),
            float(own[exit]),
            float(passed[exit]),
            temperatures[exit],
            {score: area[exit] for score, area in areas.items()},
            _reliability(outputs, exit, 1.0),
            _reliability(outputs, exit, temperatures[exit]),
        )
        for exit, name in enumerate(outputs.names)
    )


def agreement(outputs: ExitOutputs) -> NDArray[np.float64]:
    """Share of samples for which two exits answer the same class, (E, E).

    For a regression, the mean absolute difference of their answers.
    """
    answers = outputs.predictions
    if outputs.task == "regression":
        wide = answers.astype(np.float64)
        return np.stack([np.abs(wide - one).mean(axis=1) for one in wide])
    return np.stack([(answers == one).mean(axis=1) for one in answers])


def _areas(outputs: ExitOutputs, score: Score) -> list[float | None]:
    """The AUROC of a score at each exit; None at the last exit."""
    early = zip(score.of(outputs), nothing_lost(outputs.correct), strict=False)
    return [*(auroc(sure, positive) for sure, positive in early), None]


def _reliability(outputs: ExitOutputs, exit: int, temperature: float | None) -> Reliability | None:
    if outputs.task == "regression" or temperature is None:
        return None
    return reliability(outputs.outputs[exit], outputs.correct[exit], temperature)


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks (N,) from 1; equal values share their mean rank.

    Same as `scipy.stats.rankdata`, but importing scipy.stats would take longer than everything
    else.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
