"""calibrate: thresholds that keep a promise with stated confidence, or none at all."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.calibration.budget import budgeted
from offramp.calibration.candidates import Candidate, Inputs, candidates_of, strata_of
from offramp.calibration.procedure import Certified, certified, no_policy
from offramp.calibration.request import Request
from offramp.calibration.risks import losses_of
from offramp.calibration.roles import roles_of
from offramp.calibration.temperature import fit_temperatures
from offramp.errors import DataError, PlanError, ShapeError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.decision import Thresholds
from offramp.policy.menu import PolicyMenu
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Method, Promise, Within
from offramp.policy.scores import Score, find_score
from offramp.table import Table

_SHOWN = 12


@dataclass(frozen=True)
class Tried:
    """A candidate as it was tested.

    Attributes:
        thresholds: One per early exit, None where disabled.
        saved: Share of the backbone's cost saved on all given samples.
        guessed: Mean loss on the samples that the order was learned on.
        estimate: Mean loss on those that tested it; of the worst class or group, where each counts.
        tested: Its p-value (`ltt`) or upper bound (`ucb`); None where testing had stopped before.
    """

    thresholds: Thresholds
    saved: float
    guessed: float
    estimate: float
    tested: float | None


@dataclass(frozen=True, eq=False)
class Calibration:
    """A certified policy with its evidence; it prints as a table.

    Attributes:
        num_samples: By role: `stopping`, `temperature`, `order` and `test`, which alone carries
            the promise.
        path: All candidates, in the order learned before any was tested.
        num_certified: How many of them, from the first one, are certified.
        chosen: Place of the policy among them: the one that saves most.
        saved: Share of the backbone's cost it saves on all given samples.
    """

    policy: ExitPolicy
    num_samples: Mapping[str, int]
    path: tuple[Tried, ...]
    num_certified: int
    chosen: int
    saved: float
    cost: CostUnit

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "policy": self.policy.as_json(),
            "num_samples": dict(self.num_samples),
            "path": [asdict(candidate) for candidate in self.path],
            "num_certified": self.num_certified,
            "chosen": self.chosen,
            "saved": self.saved,
            "cost": self.cost,
        }

    def __str__(self) -> str:
        promise = self.policy.promise
        head = [*self.policy.names[:-1], f"saved % of {self.cost}", "loss, order", "loss, test"]
        head += ["bound" if promise is not None and promise.method == "ucb" else "p-value", ""]
        rows = [self._row(place) for place in self._shown()]
        used = ", ".join(f"{num} {role}" for role, num in self.num_samples.items() if num)
        return (
            f"{Table(head, rows, left=0)}\n"
            f"{self.num_certified} of {len(self.path)} candidates certified, {len(rows)} shown; "
            f"samples: {used}; the promise is carried by the {self.num_samples['test']} that "
            f"tested.\n{self._legend()}\n{self.policy}"
        )

    def _legend(self) -> str:
        promise = self.policy.promise
        if promise is None:
            return ""
        worst = f", of the worst {promise.within} on the test samples" if promise.within else ""
        rule = (
            f"bound <= {promise.limit:g}"
            if promise.method == "ucb"
            else f"p-value <= {1 - promise.confidence:.4g}"
        )
        return (
            f"Losses are means per sample{worst}. Certified is what has {rule}, up to the first "
            "that has not."
        )

    def _row(self, place: int) -> list[str]:
        candidate = self.path[place]
        mark = "" if place < self.num_certified else "not certified"
        return [
            *("never" if each is None else f"{each:.4f}" for each in candidate.thresholds),
            f"{100 * candidate.saved:.1f}",
            f"{candidate.guessed:.4f}",
            f"{candidate.estimate:.4f}",
            "" if candidate.tested is None else f"{candidate.tested:.4g}",
            "chosen" if place == self.chosen else mark,
        ]

    def _shown(self) -> list[int]:
        """Places of the rows shown: the chosen, the first not certified, and some on the way."""
        last = min(self.num_certified, len(self.path) - 1)
        step = max(1, last // _SHOWN)
        return sorted({*range(0, last + 1, step), self.chosen, last})


class _Settings(TypedDict, total=False):
    """What both calls take beside `max_drop`, for their signatures."""

    max_rise: float | None
    max_disagreement: float | None
    confidence: float
    score: Score | str
    cost: CostUnit
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
    cost: CostUnit = "flops",
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
    what the policy will meet. Rows with an equal cluster or id count as dependent: the promise
    stays one per row, is tested over whole clusters, and holds for clusters of at most the size
    of the largest that is given. Permuting rows together with `split` changes nothing.

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
            2021); `ucb` bounds the risk of every candidate without looking at the limit. The two
            are a test and its inverse, so they certify alike, and `ucb` also says by how much.
        within: Keep the promise in each class, or each group, that occurs in the outputs.
        split: (N,) role of each row: `stopping` (it stopped a training early; not used here),
            `temperature`, `order` or `test`. None draws roles, one for each cluster.
        seed: Of that draw.
        temperature: Divide each early exit's logits by a temperature, fitted on rows of its own.
        loss_bound: What single rises are clipped at; `max_rise` needs it.

    Raises:
        NoPolicyError: No policy with an active early exit is certified.
        PlanError: Not exactly one goal; a setting that there is not or that does not fit the task.
        DataError: Training used the outputs' split and `split` does not say which rows are fresh.
    """
    request = Request.of(
        max_drop=max_drop,
        max_rise=max_rise,
        max_disagreement=max_disagreement,
        budget=budget,
        confidence=confidence,
        score=score,
        cost=cost,
        method=method,
        within=within,
        seed=seed,
        temperature=temperature,
        loss_bound=loss_bound,
    )
    if request.budget is not None:
        if split is not None:
            raise PlanError("a budget has no use for split: all rows choose its thresholds.")
        return budgeted(outputs, request.budget, score=request.score, cost=request.cost)
    found = calibrations(outputs, request, split)
    if not request.is_menu:
        return found[0].policy
    return PolicyMenu.of([calibration.policy for calibration in found], request.limits)


def calibrations(
    outputs: ExitOutputs, request: Request, split: ArrayLike | None = None
) -> tuple[Calibration, ...]:
    """What `calibrate` did: policies with the evidence for them, the strictest limit first.

    Raises:
        NoPolicyError: No policy with an active early exit is certified for any limit.
        PlanError: The request does not fit the task, or is a budget, which has no evidence.
        DataError: Training used the outputs' split and `split` does not say which rows are fresh.
    """
    if request.goal == "budget":
        raise PlanError("a budget promises nothing, so it has no evidence. Use `calibrate`.")
    if len(outputs.names) < 2:
        raise ShapeError("these outputs have no early exit, so there is nothing to calibrate.")
    roles = roles_of(outputs, split, request.seed, temperature=request.temperature)
    score = find_score(request.score)
    temperatures = (
        _temperatures(outputs, roles.temperature, split is None) if request.temperature else None
    )
    inputs = Inputs(
        outputs=outputs,
        score=score,
        scores=score.of(outputs, temperatures),
        temperatures=temperatures,
        unit=request.cost,
        roles=roles,
        losses=losses_of(outputs, request.goal, request.loss_bound),
        strata=strata_of(outputs, request.within),
        level=request.level,
    )
    candidates = candidates_of(inputs)
    tried = {limit: certified(candidates, request, limit) for limit in request.limits}
    found = tuple(
        _calibration(inputs, candidates, request, limit, result)
        for limit, result in tried.items()
        if result.chosen is not None
    )
    if not found:
        raise no_policy(inputs, candidates, request)
    return found


def calibration_of(
    outputs: ExitOutputs, *, split: ArrayLike | None = None, **settings: Any
) -> Calibration:
    """What `calibrate` did for one limit; settings and errors are those of `calibrate`."""
    [found] = calibrations(outputs, Request.of(**settings), split)
    return found


def _calibration(
    inputs: Inputs,
    candidates: Sequence[Candidate],
    request: Request,
    limit: float,
    result: Certified,
) -> Calibration:
    chosen = cast(int, result.chosen)
    clusters = inputs.roles.num_test_clusters
    promise = Promise(
        goal=inputs.losses.goal,
        limit=limit,
        confidence=request.confidence,
        method=request.method,
        within=request.within,
        num_samples=len(inputs.roles.test),
        num_clusters=clusters,
        cluster_size=None if clusters is None else inputs.roles.cluster_size,
        estimate=candidates[chosen].estimate,
        loss_bound=inputs.losses.bound,
    )
    tested = [*result.tested, *[None] * (len(candidates) - len(result.tested))]
    return Calibration(
        policy=dataclasses.replace(candidates[chosen].policy, promise=promise),
        num_samples=inputs.roles.sizes,
        path=tuple(
            Tried(each.policy.thresholds, each.saved, each.guessed, each.estimate, value)
            for each, value in zip(candidates, tested, strict=True)
        ),
        num_certified=result.num,
        chosen=chosen,
        saved=candidates[chosen].saved,
        cost=inputs.unit,
    )


def _temperatures(outputs: ExitOutputs, rows: NDArray[np.int64], drawn: bool) -> tuple[float, ...]:
    """Of the early exits, from rows of their own."""
    if rows.size:
        return fit_temperatures(outputs, rows)
    if drawn:
        raise DataError(
            f"temperature=True fits temperatures on about 15 % of the samples, and of these "
            f"{len(outputs.labels)} none was drawn for it. Calibrate on more samples, or without "
            "temperatures."
        )
    raise DataError(
        "temperature=True needs rows of the role 'temperature', and split names none. Name some, "
        "or give split=None."
    )
