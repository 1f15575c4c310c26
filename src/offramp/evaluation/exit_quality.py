"""What each exit is worth: its value, its calibration, and how well its scores rank samples."""

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
    """Bins of equal mass over the maximum softmax; only bins that hold samples.

    Attributes:
        confidence: (B,) mean maximum softmax of each bin.
        accuracy: (B,) share of right answers in it.
        counts: (B,) samples in it.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy, 0 to 1.

        It is too large on few samples, for chance alone sets the two apart.
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
    """Bins of one exit from its logits (N, K) and whether it is right (N,).

    Bins divide the ranks of the confidences evenly; equal confidences share a bin.
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
    """Whether this exit is right, or no later exit is: (E, N) from (E, N).

    Where it holds, a later exit brings nothing (failure prediction for early exits, EEFP 2026).
    It holds for every sample at the last exit.
    """
    from_here_on: NDArray[np.bool_] = np.logical_or.accumulate(right[::-1])[::-1]
    later = np.concatenate([from_here_on[1:], np.zeros_like(right[:1])])
    lost: NDArray[np.bool_] = later & ~right
    return ~lost


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Chance that a positive scores above a negative, a tie being half; None if one is missing."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    # Rank sum of the positives less its least value counts the pairs in order (Mann-Whitney's U).
    above = _midranks(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


@dataclass(frozen=True, eq=False)
class ExitQuality(Record):
    """One exit on the judged samples.

    Attributes:
        name: Its cut, or the name of the last exit.
        value: Accuracy, 0 to 1, or mean absolute error.
        cost: Of leaving here on the own path, in the quality's unit.
        cost_with_passed: The same with the branches passed on the way.
        temperature: Fitted on other rows, where they were given.
        auroc: By score: how well it separates samples for which this exit is right, or no later
            exit is, from the others. None where all are the same, as at the last exit.
        before: Reliability of its maximum softmax; None for a regression.
        after: The same with the logits divided by `temperature`.
    """

    name: str
    value: float
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
    """Judge every exit by the measure of all answers (E, N); `others` fit the temperatures."""
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
    """Share of samples on which two exits answer the same class, (E, E).

    For a regression the mean absolute difference of their values.
    """
    answers = outputs.predictions
    if outputs.task == "regression":
        wide = answers.astype(np.float64)
        return np.stack([np.abs(wide - one).mean(axis=1) for one in wide])
    return np.stack([(answers == one).mean(axis=1) for one in answers])


def _areas(outputs: ExitOutputs, score: Score) -> list[float | None]:
    """One per exit; the last has no score, and nothing to separate."""
    early = zip(score.of(outputs), nothing_lost(outputs.correct), strict=False)
    return [*(auroc(sure, positive) for sure, positive in early), None]


def _reliability(outputs: ExitOutputs, exit: int, temperature: float | None) -> Reliability | None:
    if outputs.task == "regression" or temperature is None:
        return None
    return reliability(outputs.outputs[exit], outputs.correct[exit], temperature)


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks (N,) from 1; equal values share the mean of theirs, so their order cannot matter.

    `scipy.stats.rankdata` gives the same, but importing scipy.stats takes longer than all else.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
