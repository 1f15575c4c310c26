"""Quality of exits and policies: calibration, ranking by scores, the oracle, losses per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError, PlanError, ShapeError
from offramp.evaluation.exit_quality import ExitQuality, agreement, exit_qualities
from offramp.evaluation.oracle import BudgetPoint, OracleCurve, budget_points, oracle_curve
from offramp.evaluation.policy_quality import Part, PolicyQuality, drop_head, judge_policy
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy import ExitPolicy, Score, find_score
from offramp.record import Record
from offramp.table import Column, Table, counted, scaled_costs
from offramp.task import Measure

Policies = Sequence[ExitPolicy] | Mapping[str, ExitPolicy]
_WORST = 10  # largest number of parts in a table


@dataclass(frozen=True, eq=False, kw_only=True)
class Quality(Record):
    """The quality of exits and policies on a set of samples; `str` prints tables.

    Attributes:
        measure: What values measure: accuracy or mean absolute error.
        unit: Unit of costs: `flops` or `ms`.
        samples: Number of evaluated samples.
        temperatures_fitted_on: Number of other samples used to fit temperatures; None without.
        exits: One per exit.
        agreement: (E, E) share of equal answers; for a regression, mean absolute differences.
        oracle: The best mean value for each mean cost.
        policies: One per policy.
        budgets: The best choices within 25, 50, 75 and 100 % of the backbone's cost.
    """

    measure: Measure
    unit: CostUnit
    samples: int
    temperatures_fitted_on: int | None
    exits: tuple[ExitQuality, ...]
    agreement: NDArray[np.float64]
    oracle: OracleCurve
    policies: tuple[PolicyQuality, ...]
    budgets: tuple[BudgetPoint, ...]

    def tables(self) -> list[Table]:
        """Tables of exits, agreement and budgets; with policies, also of these and their parts."""
        return [
            self._exit_table(),
            self._agreement_table(),
            self._budget_table(),
            *([self.policy_table()] if self.policies else []),
            *self.part_tables(),
        ]

    def policy_table(self) -> Table:
        """Cost and loss of policies, and which exits answer."""
        overall = [policy.overall for policy in self.policies]
        return Table.of(
            ("policy", [policy.name for policy in self.policies]),
            *self._mix_columns(overall),
            (self.measure.head, [self.measure.text(part.value) for part in overall]),
            (self.measure.root_head, self.measure.root_texts(part.rmse for part in overall)),
            *self._drop_columns(overall),
            ("saved %", [f"{100 * policy.saved:.1f}" for policy in self.policies]),
            ("above oracle %", [f"{100 * policy.oracle_gap:.1f}" for policy in self.policies]),
            title="Policies: which exit answers, and at what cost",
        )

    def part_tables(self) -> list[Table]:
        """For each policy, the classes and groups that lose most."""
        return [self._part_table(policy) for policy in self.policies if policy.parts]

    def _part_table(self, policy: PolicyQuality) -> Table:
        shown = policy.parts[:_WORST]
        rest = f", {_WORST} of {len(policy.parts)}" if len(policy.parts) > _WORST else ""
        return Table.of(
            ("part", [str(part) for part in shown]),
            ("samples", [str(part.samples) for part in shown]),
            *self._mix_columns(shown),
            (self.measure.head, [self.measure.text(part.value) for part in shown]),
            ("final", [self.measure.text(part.final) for part in shown]),
            *self._drop_columns(shown),
            title=f"{policy.name}: the largest drops first{rest}",
        )

    def _mix_columns(self, parts: Sequence[Part]) -> list[Column]:
        return [
            (f"{name} %", [f"{100 * part.mix[exit]:.1f}" for part in parts])
            for exit, name in enumerate(self._names)
        ]

    def _drop_columns(self, parts: Sequence[Part]) -> list[Column]:
        return [
            (drop_head(self.measure), [self.measure.difference_text(part.drop) for part in parts]),
            ("95 % interval", [part.interval.difference_text(self.measure) for part in parts]),
        ]

    def oracle_sentence(self) -> str:
        """A sentence about what the best exit for each sample would reach."""
        oracle, measure, final = self.oracle, self.measure, self.exits[-1].value
        return (
            "The oracle, the best exit for each sample, reaches the final exit's "
            f"{measure.noun} of {measure.amount(final)} at "
            f"{100 * oracle.cost_share_for(final):.1f} % of the backbone's cost, and "
            f"{measure.amount(oracle.value[-1])} at {100 * oracle.cost_share[-1]:.1f} %."
        )

    def __str__(self) -> str:
        return "\n\n".join([*map(str, self.tables()), self.oracle_sentence()])

    @property
    def _names(self) -> list[str]:
        return [exit.name for exit in self.exits]

    def _exit_table(self) -> Table:
        unit, costs = scaled_costs(self.unit, [exit.cost for exit in self.exits])
        others = self.temperatures_fitted_on
        fitted = f", temperatures from {others} others" if others else ""
        return Table.of(
            ("exit", self._names),
            (self.measure.head, [self.measure.text(exit.value) for exit in self.exits]),
            (self.measure.root_head, self.measure.root_texts(exit.rmse for exit in self.exits)),
            (unit, costs),
            ("ECE %", [f"{100 * e.before.ece:.1f}" for e in self.exits if e.before]),
            ("temperature", [f"{e.temperature:.2f}" for e in self.exits if e.temperature]),
            ("ECE after %", [f"{100 * e.after.ece:.1f}" for e in self.exits if e.after]),
            *(
                (f"AUROC {score}", [_area_text(exit.auroc[score]) for exit in self.exits])
                for score in self.exits[0].auroc
            ),
            title=f"Exits ({self.samples} samples{fitted})",
        )

    def _agreement_table(self) -> Table:
        share = self.measure.higher_is_better
        rows = [
            [name, *(self.measure.text(value) for value in row)]
            for name, row in zip(self._names, self.agreement.tolist(), strict=True)
        ]
        unit = f" ({self.measure.unit})" if self.measure.unit else ""
        title = "Agreement, % of samples" if share else f"Mean absolute difference{unit}"
        return Table(["exit", *self._names], rows, title)

    def _budget_table(self) -> Table:
        judged = self.budgets if self.policies else ()
        return Table.of(
            ("cost %", [f"{100 * point.share:.0f}" for point in self.budgets]),
            ("best exit", [point.exit or "none" for point in self.budgets]),
            (self.measure.head, [self._text(point.value) for point in self.budgets]),
            ("best policy", [point.policy or "none" for point in judged]),
            (self.measure.head, [self._text(point.policy_value) for point in judged]),
            ("oracle", [self._text(point.oracle) for point in self.budgets]),
            title="Best choices within a share of the backbone's cost, on these samples",
        )

    def _text(self, value: float | None) -> str:
        return "" if value is None else self.measure.text(value)


def quality(
    outputs: ExitOutputs,
    policies: Policies = (),
    *,
    temperatures_on: ExitOutputs | None = None,
    scores: Sequence[str | Score] | None = None,
    unit: CostUnit = "flops",
    class_names: Sequence[str] = (),
) -> Quality:
    """Evaluate exits and policies on a set of samples.

    Args:
        outputs: Outputs on the samples to evaluate.
        policies: Policies in order, or by name.
        temperatures_on: Other samples, to fit one temperature per exit.
        scores: Scores to compute the AUROC of; maximum softmax by default, none for a regression.
        unit: Unit of costs.
        class_names: Names of the classes; by default those in the outputs, or else numbers.

    Raises:
        PlanError: `scores` or `temperatures_on` is given for a regression.
        ShapeError: A policy or `temperatures_on` has other exits, the backbone has no cost, or a
            label has no class name.
        DataError: `temperatures_on` shares samples with `outputs`.
        OfframpError: `unit` is "ms", but the outputs contain no measured times.
    """
    if temperatures_on is not None:
        _check_others(outputs, temperatures_on)
    class_names = tuple(class_names) or outputs.class_names
    _check_names(class_names, outputs)
    measure, costs = outputs.measure, outputs.own_path_cost(unit)
    if costs[-1] == 0:
        raise ShapeError(
            "the backbone's cost is 0, so shares of it are undefined. Give stage_flops (or "
            "stage_ms) above 0."
        )
    values = measure.values(outputs.outputs, outputs.labels)
    oracle = oracle_curve(values, costs, float(costs[-1]), measure)
    exits = exit_qualities(outputs, _scores(outputs, scores), temperatures_on, unit, values)
    judged = tuple(
        judge_policy(name, policy, outputs, oracle, unit, class_names, values)
        for name, policy in _named(policies).items()
    )
    whole = exits[-1].cost
    return Quality(
        measure=measure,
        unit=unit,
        samples=values.shape[1],
        temperatures_fitted_on=None if temperatures_on is None else len(temperatures_on.labels),
        exits=exits,
        agreement=agreement(outputs),
        oracle=oracle,
        policies=judged,
        budgets=budget_points(
            [(exit.cost / whole, exit.value, exit.name) for exit in exits],
            [(policy.cost_share, policy.overall.value, policy.name) for policy in judged],
            oracle,
        ),
    )


def _area_text(area: float | None) -> str:
    return "" if area is None else f"{area:.3f}"


def _named(policies: Policies) -> Mapping[str, ExitPolicy]:
    if isinstance(policies, Mapping):
        return policies
    return {f"policy {place}": policy for place, policy in enumerate(policies, start=1)}


def _scores(outputs: ExitOutputs, scores: Sequence[str | Score] | None) -> list[Score]:
    if outputs.task == "classification":
        return [find_score(score) for score in (["max_softmax"] if scores is None else scores)]
    if scores:
        raise PlanError(
            "the AUROC of a score needs right and wrong answers, but these outputs are of a "
            "regression. Leave scores out."
        )
    return []


def _check_names(class_names: Sequence[str], outputs: ExitOutputs) -> None:
    if (
        class_names
        and outputs.task == "classification"
        and outputs.labels.max() >= len(class_names)
    ):
        raise ShapeError(
            f"class_names has {len(class_names)} names, but a sample has label "
            f"{outputs.labels.max()}. Give one name per class, in order."
        )


def _check_others(outputs: ExitOutputs, others: ExitOutputs) -> None:
    if others.task != outputs.task or tuple(others.names) != tuple(outputs.names):
        raise ShapeError(
            f"temperatures_on is a {others.task} with exits {list(others.names)}, but outputs is "
            f"a {outputs.task} with exits {list(outputs.names)}. Collect both from the same model."
        )
    if outputs.task == "regression":
        raise PlanError(
            "temperatures divide logits, but these outputs are of a regression, which has none. "
            "Leave temperatures_on out."
        )
    if others.outputs.shape[2] != outputs.outputs.shape[2]:
        raise ShapeError(
            f"temperatures_on has {others.outputs.shape[2]} classes, but outputs has "
            f"{outputs.outputs.shape[2]}. Collect both from the same model."
        )
    shared = _shared(outputs, others)
    if shared:
        raise DataError(
            f"temperatures_on shares {counted(shared, 'sample')} with outputs, so the calibration "
            "error after scaling would look too small. Fit on other samples, such as the "
            "calibration split."
        )


def _shared(outputs: ExitOutputs, others: ExitOutputs) -> int:
    if outputs.ids is not None and others.ids is not None:
        return int(np.isin(outputs.ids, others.ids).sum())
    same = others is outputs or np.array_equal(others.outputs, outputs.outputs)
    return len(outputs.labels) if same else 0
