"""calibrate: find thresholds that keep a promise with the stated confidence, or say why not."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack, cast, overload

from numpy.typing import ArrayLike

from offramp.calibration.budget import budgeted
from offramp.calibration.candidates import Candidate, Inputs, candidates_of, strata_of
from offramp.calibration.procedure import Certified, certified, no_policy
from offramp.calibration.request import Request
from offramp.calibration.risks import losses_of
from offramp.calibration.roles import Roles, check_early_exits, roles_of, use_of
from offramp.calibration.temperature import fit_temperatures
from offramp.errors import DataError, PlanError
from offramp.outputs import CostUnit, ExitOutputs, check_outputs
from offramp.policy.decision import Thresholds
from offramp.policy.menu import PolicyMenu
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Method, Promise, Within
from offramp.policy.scores import Score, score_for
from offramp.table import Table

_SHOWN = 12


@dataclass(frozen=True)
class Tried:
    """A tested candidate.

    Attributes:
        thresholds: One per early exit, None where disabled.
        saved: Share of the backbone's cost saved over all samples.
        guessed: Mean loss on the order samples.
        estimate: Mean loss on the test samples; with `within`, that of the worst class or group.
        tested: p-value (`ltt`) or upper bound (`ucb`); None if testing stopped before this
            candidate.
    """

    thresholds: Thresholds
    saved: float
    guessed: float
    estimate: float
    tested: float | None


@dataclass(frozen=True, eq=False)
class Calibration:
    """A certified policy with the evidence for it; `str` prints a table.

    Attributes:
        num_samples: Number of samples by role: `stopping`, `temperature`, `order` and `test`. The
            promise rests on the test samples only.
        path: All candidates in the order of testing.
        num_certified: Number of candidates certified; they are the first ones of `path`.
        chosen: Index in `path` of the certified candidate that saves most, which is the policy.
        saved: Share of the backbone's cost that the policy saves over all samples.
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
        head = [*self.policy.names[:-1], f"saved % of {self.cost}"]
        head += ["loss, ordering", "loss, testing"]
        head += ["bound" if promise is not None and promise.method == "ucb" else "p-value", ""]
        rows = [self._row(place) for place in self._shown()]
        return (
            f"{Table(head, rows, left=0)}\n{self.num_certified} of {len(self.path)} candidates "
            f"certified, {len(rows)} shown. {use_of(self.num_samples, promise)}\n"
            f"{self._legend()}\n{self.policy}"
        )

    def _legend(self) -> str:
        if (promise := self.policy.promise) is None:
            return ""
        worst = f" (on test rows, means over the worst {promise.within})" if promise.within else ""
        rule = (
            f"bound <= {promise.limit:g}"
            if promise.method == "ucb"
            else f"p-value <= {1 - promise.confidence:.4g}"
        )
        return (
            f"Losses are means per sample{worst}. A candidate is certified if it and all before "
            f"it have {rule}."
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
        """Indices of the candidates to print: some certified ones, the chosen one, the failure."""
        last = min(self.num_certified, len(self.path) - 1)
        step = max(1, last // _SHOWN)
        return sorted({*range(0, last + 1, step), self.chosen, last})


class _Settings(TypedDict, total=False):
    """Settings that both overloads of `calibrate` take besides `max_drop`."""

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
    score: Score | str | None = None,
    cost: CostUnit = "flops",
    method: Method = "ltt",
    within: Within | None = None,
    split: ArrayLike | None = None,
    seed: int = 0,
    temperature: bool = False,
    loss_bound: float | None = None,
) -> ExitPolicy | PolicyMenu:
    """Choose the policy that saves most while keeping a promise, or the best one within a budget.

    One part of the rows decides in which order candidate policies are tested, another part tests
    them. The promise holds with the stated confidence, for any number of rows, if the rows are
    drawn independently from the distribution that the policy will meet. Rows with the same cluster
    or id count as dependent: the risk is still a mean per row, but whole clusters are tested, and
    the promise holds for clusters no larger than the largest one given. Permuting the rows,
    together with `split`, does not change the result.

    Args:
        outputs: Outputs on samples that were not used in training.
        max_drop: Largest allowed drop in accuracy compared with the final exit; 0.01 is one point.
            A sequence of limits gives a menu, each limit certified on its own.
        max_rise: Largest allowed rise of the mean absolute error, in the unit of the labels.
        max_disagreement: Largest allowed share of answers that differ from the final exit's.
        budget: Mean cost in the unit of `cost`; comes without a promise (see `budgeted`).
        confidence: Probability, over the random draw of the rows, that the promise holds.
        score: Confidence score of an exit: a name from `SCORES`, or a Score; None: see `score_for`.
        cost: The cost to save.
        method: `ltt` tests every candidate against the limit (Learn then Test, Angelopoulos et al.
            2021); `ucb` computes an upper confidence bound of every candidate's risk and compares
            it with the limit. The bound inverts the test, so both certify the same candidates;
            `ucb` also shows the margin.
        within: Keep the promise in every class, or every group, that occurs in the outputs.
        split: (N,) role of each row: `stopping` (used for early stopping in training, so ignored
            here), `temperature`, `order` or `test`. None draws the roles at random, cluster by
            cluster.
        seed: Seed of that draw.
        temperature: Divide each early exit's logits by a temperature, fitted on separate rows.
        loss_bound: The rise in error of a single row is clipped at this; required by `max_rise`.

    Raises:
        NoPolicyError: No policy with an active early exit is certified.
        PlanError: There is not exactly one goal, or a setting is unknown or does not suit the task.
        DataError: The outputs are of a split used in training, and `split` is None.
    """
    check_outputs(outputs)
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
            raise PlanError(
                "split does not apply to a budget, which chooses its thresholds on all rows. "
                "Leave it out."
            )
        return budgeted(outputs, request.budget, score=request.score, cost=request.cost)
    found = calibrations(outputs, request, split)
    if not request.is_menu:
        return found[0].policy
    return PolicyMenu.of([calibration.policy for calibration in found], request.limits)


def calibrations(
    outputs: ExitOutputs, request: Request, split: ArrayLike | None = None
) -> tuple[Calibration, ...]:
    """Calibrate as `calibrate` does; return policies with their evidence, strictest limit first.

    Raises:
        NoPolicyError: No policy with an active early exit is certified for any limit.
        PlanError: The request does not suit the task, or is a budget.
        DataError: The outputs are of a split used in training, and `split` is None.
    """
    if request.goal == "budget":
        raise PlanError(
            "a budget comes without a promise, so there is no evidence to return. Use `calibrate`."
        )
    check_early_exits(outputs)
    roles = roles_of(outputs, split, request.seed, temperature=request.temperature)
    score = score_for(outputs, request.score)
    temperatures = _temperatures(outputs, roles, split is None) if request.temperature else None
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
    """Calibrate for one limit and return the evidence; settings and errors as in `calibrate`."""
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
    clustered = inputs.roles.clusters is not None
    promise = Promise(
        goal=inputs.losses.goal,
        limit=limit,
        confidence=request.confidence,
        method=request.method,
        within=request.within,
        num_samples=len(inputs.roles.test),
        num_clusters=inputs.roles.num_units_with("test") if clustered else None,
        cluster_size=inputs.roles.cluster_size if clustered else None,
        estimate=candidates[chosen].estimate,
        loss_bound=inputs.losses.bound,
        unit=inputs.outputs.measure.unit if inputs.losses.goal == "max_rise" else "",
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


def _temperatures(outputs: ExitOutputs, roles: Roles, drawn: bool) -> tuple[float, ...]:
    """Temperatures of the early exits, fitted on the rows with that role."""
    if roles.temperature.size:
        return fit_temperatures(outputs, roles.temperature)
    if drawn:
        raise DataError(
            f"temperature=True fits temperatures on about 15 % of the {roles.unit}s, drawn at "
            f"random, but none of these {roles.num_units} was drawn. Calibrate on more "
            f"{roles.unit}s, or without temperatures."
        )
    raise DataError(
        "temperature=True needs rows with the role 'temperature', but split has none. Add some, "
        "or use split=None."
    )
