"""What each exit is worth: how good, how well calibrated, how well its scores tell who may go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.temperature import fit_temperature
from offramp.evaluation.quality.auroc import auroc, nothing_lost
from offramp.evaluation.quality.reliability import Reliability, reliability
from offramp.outputs import ExitOutputs, Unit
from offramp.policy import Score
from offramp.task import measure_of


@dataclass(frozen=True, eq=False)
class ExitQuality:
    """One exit on the judged samples.

    Attributes:
        name: Its cut, or the name of the last exit.
        value: Accuracy, 0 to 1, or mean absolute error.
        cost: Of leaving here on the own path, in the quality's unit.
        cost_with_passed: The same with the branches passed on the way.
        reliability: Of its maximum softmax; None for a regression.
        temperature: Fitted on other rows, where they were given.
        reliability_scaled: With the logits divided by `temperature`.
        auroc: By score: how well it tells samples for which this exit is right, or no later exit
            is, from the others. None where all are the same, as at the last exit.
    """

    name: str
    value: float
    cost: float
    cost_with_passed: float
    reliability: Reliability | None
    temperature: float | None
    reliability_scaled: Reliability | None
    auroc: Mapping[str, float | None]

    @property
    def ece(self) -> float | None:
        """Expected calibration error, 0 to 1; None for a regression."""
        return None if self.reliability is None else self.reliability.ece

    @property
    def ece_scaled(self) -> float | None:
        """The same after temperature scaling, where there is a temperature."""
        return None if self.reliability_scaled is None else self.reliability_scaled.ece

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "name": self.name,
            "value": self.value,
            "cost": self.cost,
            "cost_with_passed": self.cost_with_passed,
            "temperature": self.temperature,
            "auroc": dict(self.auroc),
            "before": _calibration(self.reliability),
            "after": _calibration(self.reliability_scaled),
        }


def exit_qualities(
    outputs: ExitOutputs,
    scores: Sequence[Score],
    others: ExitOutputs | None,
    unit: Unit,
    bins: int,
) -> tuple[ExitQuality, ...]:
    """Judge every exit; temperatures are fitted on `others`."""
    values = measure_of(outputs.task).values(outputs.outputs, outputs.labels)
    own, passed = outputs.own_path_cost(unit), outputs.with_passed_cost(unit)
    areas = {score.name: _areas(outputs, score) for score in scores}
    return tuple(
        ExitQuality(
            name,
            float(values[exit].mean()),
            float(own[exit]),
            float(passed[exit]),
            *_calibrated(outputs, others, exit, bins),
            {score: area[exit] for score, area in areas.items()},
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
    """One per exit; the last has no score, and nothing to tell apart."""
    early = zip(score.of(outputs), nothing_lost(outputs.correct), strict=False)
    return [*(auroc(sure, positive) for sure, positive in early), None]


def _calibrated(
    outputs: ExitOutputs, others: ExitOutputs | None, exit: int, bins: int
) -> tuple[Reliability | None, float | None, Reliability | None]:
    """Reliability, temperature and reliability with it."""
    if outputs.task == "regression":
        return None, None, None
    logits, right = outputs.outputs[exit], outputs.correct[exit]
    before = reliability(logits, right, 1.0, bins)
    if others is None:
        return before, None, None
    temperature = fit_temperature(others.outputs[exit], others.labels)
    return before, temperature, reliability(logits, right, temperature, bins)


def _calibration(found: Reliability | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"ece": found.ece, "debiased_ece": found.debiased_ece, "bins": found.as_json()}
