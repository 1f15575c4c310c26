"""Quality of exits: calibration, what scores can tell, the oracle, what policies do to whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError, PlanError, ShapeError
from offramp.evaluation.quality.budgets import BudgetPoint, budget_points
from offramp.evaluation.quality.exits import ExitQuality, agreement, exit_qualities
from offramp.evaluation.quality.mix import PolicyQuality, policy_quality
from offramp.evaluation.quality.oracle import OracleCurve, oracle_curve
from offramp.evaluation.quality.text import quality_text
from offramp.outputs import ExitOutputs, Unit
from offramp.policy import ExitPolicy, Score, find_score
from offramp.task import Measure, measure_of

Policies = Sequence[ExitPolicy] | Mapping[str, ExitPolicy]


@dataclass(frozen=True, eq=False, kw_only=True)
class Quality:
    """What the exits are worth on a set of samples; it prints as tables.

    Attributes:
        measure: What values are: accuracy, or mean absolute error.
        unit: Of costs: `flops` or `ms`.
        samples: How many were judged.
        fitted_on: How many other samples the temperatures were fitted on; None without.
        exits: One per exit.
        agreement: (E, E) share of equal answers; for a regression mean absolute differences.
        oracle: The best mean value for each mean cost.
        policies: One per policy.
        budgets: What 25, 50, 75 and 100 % of the backbone's cost buy.
    """

    measure: Measure
    unit: Unit
    samples: int
    fitted_on: int | None
    exits: tuple[ExitQuality, ...]
    agreement: NDArray[np.float64]
    oracle: OracleCurve
    policies: tuple[PolicyQuality, ...]
    budgets: tuple[BudgetPoint, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "measure": self.measure.name,
            "unit": self.unit,
            "samples": self.samples,
            "temperatures_fitted_on": self.fitted_on,
            "exits": [exit.as_json() for exit in self.exits],
            "agreement": self.agreement.tolist(),
            "oracle": self.oracle.as_json(),
            "policies": [policy.as_json() for policy in self.policies],
            "budgets": [point.as_json() for point in self.budgets],
        }

    def __str__(self) -> str:
        return quality_text(self)


def quality(
    outputs: ExitOutputs,
    policies: Policies = (),
    *,
    temperatures_on: ExitOutputs | None = None,
    scores: Sequence[str | Score] | None = None,
    unit: Unit = "flops",
    bins: int = 15,
) -> Quality:
    """Judge the exits, and what policies make of them.

    Args:
        outputs: The samples that are judged.
        policies: In order, or by the names that tables shall use.
        temperatures_on: Other samples, on which one temperature per exit is fitted.
        scores: Whose AUROC is taken: maximum softmax when left out, none for a regression.
        unit: Of costs.
        bins: Of the calibration error; each holds about the same number of samples.

    Raises:
        PlanError: Fewer bins than one, or scores that need right and wrong answers where the
            task is regression.
        ShapeError: A policy or `temperatures_on` has other exits, or the backbone costs nothing.
        DataError: `temperatures_on` shares samples with those judged.
        OfframpError: Milliseconds are asked for and none were measured.
    """
    if bins < 1:
        raise PlanError(f"bins is {bins}; it must be at least 1, and 15 is usual.")
    if temperatures_on is not None:
        _check_others(outputs, temperatures_on)
    measure, costs = measure_of(outputs.task), outputs.own_path_cost(unit)
    if costs[-1] == 0:
        raise ShapeError(
            "the backbone costs nothing, so no share of it means anything. Give costs."
        )
    values = measure.values(outputs.outputs, outputs.labels)
    oracle = oracle_curve(values, costs, float(costs[-1]), measure)
    exits = exit_qualities(outputs, _scores(outputs, scores), temperatures_on, unit, bins)
    judged = tuple(
        policy_quality(name, policy, outputs, oracle, unit)
        for name, policy in _named(policies).items()
    )
    return Quality(
        measure=measure,
        unit=unit,
        samples=values.shape[1],
        fitted_on=None if temperatures_on is None else len(temperatures_on.labels),
        exits=exits,
        agreement=agreement(outputs),
        oracle=oracle,
        policies=judged,
        budgets=budget_points(exits, judged, oracle, measure),
    )


def _named(policies: Policies) -> Mapping[str, ExitPolicy]:
    if isinstance(policies, Mapping):
        return policies
    return {f"policy {place}": policy for place, policy in enumerate(policies, start=1)}


def _scores(outputs: ExitOutputs, scores: Sequence[str | Score] | None) -> list[Score]:
    if outputs.task == "classification":
        return [find_score(score) for score in (["max_softmax"] if scores is None else scores)]
    if scores:
        raise PlanError(
            "the AUROC of a score needs right and wrong answers, and these outputs are a "
            "regression's. Leave scores out."
        )
    return []


def _check_others(outputs: ExitOutputs, others: ExitOutputs) -> None:
    if others.task != outputs.task or tuple(others.names) != tuple(outputs.names):
        raise ShapeError(
            f"temperatures_on is a {others.task} with exits {list(others.names)}, and the judged "
            f"outputs are a {outputs.task} with {list(outputs.names)}. Collect both from one model."
        )
    if outputs.task == "regression":
        raise PlanError(
            "temperatures divide logits, and these outputs are a regression's. Leave "
            "temperatures_on out."
        )
    if others.outputs.shape[2] != outputs.outputs.shape[2]:
        raise ShapeError(
            f"temperatures_on has {others.outputs.shape[2]} classes and the judged outputs have "
            f"{outputs.outputs.shape[2]}. Collect both from one model."
        )
    shared = _shared(outputs, others)
    if shared:
        raise DataError(
            f"temperatures_on shares {shared} samples with those judged, so the calibration error "
            "after scaling would look too small. Fit on other rows, such as the calibration split."
        )


def _shared(outputs: ExitOutputs, others: ExitOutputs) -> int:
    if outputs.ids is not None and others.ids is not None:
        return int(np.isin(outputs.ids, others.ids).sum())
    same = others is outputs or np.array_equal(others.outputs, outputs.outputs)
    return len(outputs.labels) if same else 0
