"""Verbs that read a run's outputs: tradeoff and calibrate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from offramp.cli.choosing import named
from offramp.cli.replacing import Saved, Target, save_policy, saying_what_stays
from offramp.cli.showing import (
    POLICY,
    STARTS_OVER,
    AsJson,
    CalibrationOutputs,
    Outputs,
    Seed,
    read_outputs,
    read_without,
    show,
    stopping,
)

if TYPE_CHECKING:
    from offramp.calibration import Calibration
    from offramp.evaluation.quality import Quality
    from offramp.outputs import CostUnit, ExitOutputs
    from offramp.policy import ExitPolicy
    from offramp.storage.folder import Contents

_TEST = "outputs/test.npz"


def tradeoff(outputs: Outputs, as_json: AsJson = False) -> None:
    """Show accuracy against compute, one line per exit."""
    from offramp.evaluation import tradeoff as place

    rows, _ = read_outputs(outputs, "test")
    show(place(rows), as_json)


@stopping(STARTS_OVER)
def calibrate(
    outputs: CalibrationOutputs,
    max_drop: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="Largest drop in accuracy; 0.01 is one percentage point. Repeat "
            "for a menu, one policy for each drop that can be certified.",
        ),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Largest share of answers that differ from the final exit's."
        ),
    ] = None,
    max_rise: Annotated[
        float | None,
        typer.Option(metavar="ERROR", help="Regression: largest rise in the mean absolute error."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="COST",
            help="Largest mean cost per sample, in units of --cost; promises no accuracy.",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(metavar="P", help="Probability that the promise holds, 0 to 1.")
    ] = 0.95,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="SCORE",
            help="How an exit's certainty is scored: max_softmax, entropy, margin, patience, "
            "agreement, or given (scores stored with the answers).",
            show_default="max_softmax; in a regression `given`, or `agreement` if no scores are "
            "stored",
        ),
    ] = None,
    cost: Annotated[Literal["flops", "ms"], typer.Option(help="The cost to reduce.")] = "flops",
    method: Annotated[
        Literal["ltt", "ucb"],
        typer.Option(
            help="ltt (learn then test) tests the candidates one after the other; ucb bounds the "
            "risk of each."
        ),
    ] = "ltt",
    within: Annotated[
        Literal["class", "group"] | None,
        typer.Option(help="Keep the promise within each class or each group."),
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature for each exit first.")
    ] = False,
    loss_bound: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR", help="With --max-rise: clip each sample's rise in error at this."
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="INPUT",
            help="For samples that lack this input of the network, such as sound: calibrate the "
            "exits that can do without it.",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write the policy.",
            show_default="policy.json, inside RUN if that is a folder; policy-without-N.json "
            "for input number N",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Let a policy without a promise replace one that has a promise."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Choose thresholds that keep a promise, or report that none do.

    Give one of --max-drop, --max-disagreement, --max-rise and --budget.
    """
    given = dict(locals())
    from offramp.calibration import Request, calibrations
    from offramp.calibration.budget import budgeted
    from offramp.policy import PolicyMenu
    from offramp.run.names import lacking

    limits = tuple(max_drop or ()) or None
    given["max_drop"] = limits[0] if limits and len(limits) == 1 else limits
    request = Request.of(**{name: given[name] for name in Request.model_fields})
    if without is None:
        rows, run = read_outputs(outputs, "calibration", _TEST)
        name, tested = POLICY, _TEST
    else:
        rows, run, number = read_without(outputs, without)
        name, tested = lacking(POLICY, number), lacking(_TEST, number)
    found: tuple[Calibration, ...] = ()
    target = Target.of(out, run, name)
    with saying_what_stays(target.file):
        if request.budget is not None:
            policies = [budgeted(rows, request.budget, score=request.score, cost=request.cost)]
        else:
            found = calibrations(rows, request)
            policies = [each.policy for each in found]
    menu = PolicyMenu.of(policies, request.limits) if request.is_menu else None
    saved = save_policy(menu or policies[0], target, replace)
    declined = () if menu is None else menu.declined
    test, spent = _test_quality(run, tested, policies), ""
    if request.budget is not None:
        spent = _spent(request.budget, policies[0], rows, test, request.cost)
    show(Fitted(found, tuple(policies), saved, test, declined, spent), as_json)


@dataclass(frozen=True)
class Fitted:
    """Policies with the file they were saved to and their quality on the test split."""

    calibrations: "tuple[Calibration, ...]"
    policies: "tuple[ExitPolicy, ...]"
    saved: Saved
    test: "Quality | None"
    declined: tuple[float, ...] = ()
    budget: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "policies": [policy.as_json() for policy in self.policies],
            "calibrations": [each.as_json() for each in self.calibrations],
            "test": self.test and [each.as_json() for each in self.test.policies],
            "declined": list(self.declined),
            **self.saved.as_json(),
        }

    def __str__(self) -> str:
        texts = list(map(str, self.calibrations or self.policies))
        texts += [self.budget] * bool(self.budget)
        texts += [f"not certified, so not on the menu: {limit:g}" for limit in self.declined]
        if self.test is not None:
            texts.append(str(self.test.policy_table()))
            for policy, table in zip(self.policies, self.test.part_tables(), strict=False):
                if policy.promise is not None and policy.promise.within:
                    texts.append(str(table))
            texts.append(
                f"This table was measured on the {self.test.policies[0].overall.size} of "
                "the test split, on which no threshold was chosen."
            )
            for policy, judged in zip(self.policies, self.test.policies, strict=False):
                if remark := judged.against(policy.promise, self.test.measure):
                    texts.append(remark)
        return "\n\n".join([*texts, str(self.saved)])


def _spent(
    budget: float,
    policy: "ExitPolicy",
    rows: "ExitOutputs",
    test: "Quality | None",
    cost: "CostUnit",
) -> str:
    """What a policy costs on average, beside the budget that was asked for."""
    from offramp.table import scaled_costs

    costs = [budget, float(policy.cost(rows, cost).mean())]
    if test is not None and test.unit == cost:
        costs.append(test.policies[0].mean_cost)
    unit, texts = scaled_costs(cost, costs)
    where = [
        f"{texts[1]} on the calibration samples",
        *(f"{t} on the test samples" for t in texts[2:]),
    ]
    return f"mean cost per sample in {unit}: {' and '.join(where)}, of a budget of {texts[0]}"


def _test_quality(
    run: "Contents | None", tested: str, policies: "Sequence[ExitPolicy]"
) -> "Quality | None":
    """Quality of policies on the test split of a run, with the names of its classes."""
    from offramp.evaluation.quality import quality
    from offramp.outputs import ExitOutputs

    if run is None or tested not in run.files:
        return None
    rows = ExitOutputs.load(run.files[tested])
    names = rows.class_names or run.manifest.get("class_names", ())
    return quality(rows, named(policies), class_names=names)
