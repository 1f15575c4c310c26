"""calibrate: thresholds that keep a promise with stated confidence, or none at all."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict, Unpack, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.calibration.budget import budgeted
from offramp.calibration.calibration import Calibration, Candidate
from offramp.calibration.certify import Certified, certified, no_policy
from offramp.calibration.losses import losses_of
from offramp.calibration.nodes import Field, Node, nodes_of, strata_of
from offramp.calibration.parts import parts_of
from offramp.calibration.temperature import fit_temperatures
from offramp.calibration.wish import Wish, the_goal, wish_of
from offramp.errors import DataError, PlanError, ShapeError
from offramp.outputs import ExitOutputs, Unit
from offramp.policy.menu import PolicyMenu
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Goal, Method, Promise, Within
from offramp.policy.scores import Score, find_score


class _Settings(TypedDict, total=False):
    """What both calls take beside `max_drop`, for their signatures."""

    max_rise: float | None
    max_disagreement: float | None
    confidence: float
    score: Score | str
    cost: Unit
    method: Method
    within: Within | None
    split: ArrayLike | None
    seed: int
    temperature: bool
    loss_bound: float | None


@overload
def calibrate(
    outputs: ExitOutputs,
    *,
    max_drop: float | None = ...,
    budget: float | None = ...,
    **settings: Unpack[_Settings],
) -> ExitPolicy: ...


@overload
def calibrate(
    outputs: ExitOutputs,
    *,
    max_drop: Sequence[float],
    **settings: Unpack[_Settings],
) -> PolicyMenu: ...


def calibrate(
    outputs: ExitOutputs,
    *,
    max_drop: float | Sequence[float] | None = None,
    max_rise: float | None = None,
    max_disagreement: float | None = None,
    budget: float | None = None,
    confidence: float = 0.95,
    score: Score | str = "max_softmax",
    cost: Unit = "flops",
    method: Method = "ltt",
    within: Within | None = None,
    split: ArrayLike | None = None,
    seed: int = 0,
    temperature: bool = False,
    loss_bound: float | None = None,
) -> ExitPolicy | PolicyMenu:
    """The policy that saves most among those certified to keep a promise, or to fit a budget.

    The order in which policies are tested is learned on other rows than they are tested on, and
    the promise holds, with the stated confidence, for any number of rows drawn independently from
    what the policy will meet. Permuting rows together with `split` changes nothing.

    Args:
        outputs: Of samples that training has not used.
        max_drop: How much accuracy may fall against the final exit: 0.01 is one point. Several
            give a menu, each certified on its own.
        max_rise: How much the mean absolute error may rise, in the labels' unit.
        max_disagreement: Share of answers that may differ from the final exit's.
        budget: Mean cost in the unit of `cost`; carries no promise (see `budgeted`).
        confidence: That the promise holds, over the draw of the rows.
        score: How sure an exit is: a name from `SCORES`, or a Score.
        cost: What is to be saved.
        method: `ltt` tests every candidate against the limit (Learn then Test, Angelopoulos et al.
            2021); `ucb` bounds the risk of every candidate without looking at the limit. Being the
            same test and its inverse they certify alike, and `ucb` also says by how much.
        within: Keep the promise in each class, or each group, that occurs in the outputs.
        split: (N,) role of each row: `stopping` (it stopped a training early; not used here),
            `temperature`, `order` or `test`. None draws roles row by row.
        seed: Of that draw.
        temperature: Divide each early exit's logits by a temperature, fitted on rows of its own.
        loss_bound: What single rises are clipped at; `max_rise` needs it.

    Raises:
        NoPolicyError: No policy with an active early exit is certified.
        PlanError: Not exactly one goal; a setting that there is not or that does not fit the task.
        DataError: Training used the outputs' split and `split` does not say which rows are fresh.
    """
    goals = {"max_drop": max_drop, "max_rise": max_rise, "max_disagreement": max_disagreement}
    if the_goal({**goals, "budget": budget}) == "budget":
        _check_only_budget(
            confidence=confidence != 0.95,
            method=method != "ltt",
            within=within is not None,
            split=split is not None,
            temperature=temperature,
            loss_bound=loss_bound is not None,
        )
        return budgeted(outputs, cast(float, budget), score=score, cost=cost)
    if isinstance(max_drop, np.ndarray):
        max_drop = tuple(max_drop.tolist())
    found = calibration_of(
        outputs,
        max_drop=cast(Sequence[float], max_drop),
        max_rise=max_rise,
        max_disagreement=max_disagreement,
        confidence=confidence,
        score=score,
        cost=cost,
        method=method,
        within=within,
        split=split,
        seed=seed,
        temperature=temperature,
        loss_bound=loss_bound,
    )
    if isinstance(found, Calibration):
        return found.policy
    wished = cast(Sequence[float], max_drop)
    return PolicyMenu.of([calibration.policy for calibration in found], wished)


@overload
def calibration_of(
    outputs: ExitOutputs, *, max_drop: float | None = ..., **settings: Unpack[_Settings]
) -> Calibration: ...


@overload
def calibration_of(
    outputs: ExitOutputs, *, max_drop: Sequence[float], **settings: Unpack[_Settings]
) -> tuple[Calibration, ...]: ...


def calibration_of(
    outputs: ExitOutputs,
    *,
    max_drop: float | Sequence[float] | None = None,
    max_rise: float | None = None,
    max_disagreement: float | None = None,
    confidence: float = 0.95,
    score: Score | str = "max_softmax",
    cost: Unit = "flops",
    method: Method = "ltt",
    within: Within | None = None,
    split: ArrayLike | None = None,
    seed: int = 0,
    temperature: bool = False,
    loss_bound: float | None = None,
) -> Calibration | tuple[Calibration, ...]:
    """What `calibrate` did: the policy with the evidence for it.

    For several `max_drop` one for each that is certified, the strictest first. Arguments and
    errors are those of `calibrate`; a budget has no evidence.
    """
    goals = {"max_drop": max_drop, "max_rise": max_rise, "max_disagreement": max_disagreement}
    goal = cast(Goal, the_goal(goals))
    wish = wish_of(goal, goals[goal], confidence, method, within)
    if len(outputs.names) < 2:
        raise ShapeError("these outputs have no early exit, so there is nothing to calibrate.")
    if loss_bound is not None and max(wish.limits) >= loss_bound:
        raise PlanError(
            f"max_rise={max(wish.limits):g} is no wish below loss_bound={loss_bound:g}: a mean of "
            "losses that are at most that is never more. Wish for less."
        )
    parts = parts_of(outputs, split, seed, temperature=temperature)
    field = Field(
        outputs=outputs,
        score=find_score(score),
        temperatures=_temperatures(outputs, parts.temperature) if temperature else None,
        unit=cost,
        parts=parts,
        losses=losses_of(outputs, goal, loss_bound),
        strata=strata_of(outputs, within),
        level=wish.level,
    )
    found = _calibrations(field, wish)
    return found if isinstance(max_drop, Sequence) else found[0]


def _check_only_budget(**given: bool) -> None:
    """Refuse what a budget, which promises nothing, cannot use."""
    if idle := [name for name, is_given in given.items() if is_given]:
        raise PlanError(
            f"a budget has no use for {', '.join(idle)}: all rows choose its thresholds, and it "
            "promises nothing. Leave them out (temperatures that fit_temperatures found on other "
            "rows go into offramp.calibration.budget.budgeted)."
        )


def _calibrations(field: Field, wish: Wish) -> tuple[Calibration, ...]:
    nodes = nodes_of(field)
    tried = {limit: certified(nodes, wish, limit) for limit in wish.limits}
    found = tuple(
        _calibration(field, nodes, wish, limit, result)
        for limit, result in tried.items()
        if result.chosen is not None
    )
    if not found:
        raise no_policy(field, nodes, wish)
    return found


def _calibration(
    field: Field, nodes: Sequence[Node], wish: Wish, limit: float, result: Certified
) -> Calibration:
    chosen = cast(int, result.chosen)
    promise = Promise(
        goal=wish.goal,
        limit=limit,
        confidence=wish.confidence,
        method=wish.method,
        within=wish.within,
        num_samples=len(field.parts.test),
        estimate=nodes[chosen].estimate,
        loss_bound=field.losses.bound,
    )
    tested = [*result.tested, *[None] * (len(nodes) - len(result.tested))]
    return Calibration(
        policy=dataclasses.replace(nodes[chosen].policy, promise=promise),
        num_samples=field.parts.sizes,
        path=tuple(
            Candidate(node.policy.thresholds, node.saved, node.guessed, node.estimate, value)
            for node, value in zip(nodes, tested, strict=True)
        ),
        num_certified=result.num,
        chosen=chosen,
        saved=nodes[chosen].saved,
        cost=field.unit,
    )


def _temperatures(outputs: ExitOutputs, rows: NDArray[np.int64]) -> tuple[float, ...]:
    """Of the early exits, from rows of their own."""
    if not rows.size:
        raise DataError(
            "temperature=True needs rows of the role 'temperature', and split names none. Name "
            "some, or give split=None."
        )
    return fit_temperatures(outputs, rows)
