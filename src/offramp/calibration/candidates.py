"""Candidates: the policies to test, in order of increasing savings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from offramp.calibration.order import OrderRows, learned_states, walk
from offramp.calibration.risks import Evidence, Losses, Sample, evidence_of
from offramp.calibration.roles import Roles
from offramp.errors import PlanError
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Within
from offramp.policy.scores import Score

NUM_RUNGS = 32

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate policy.

    Attributes:
        saved: Share of the backbone's cost saved over all rows.
        guessed: Mean loss on the order rows.
        evidence: What the test rows show, one item per stratum.
    """

    policy: ExitPolicy
    saved: float
    guessed: float
    evidence: tuple[Evidence, ...]

    @property
    def estimate(self) -> float:
        """Mean loss on the test rows, in the worst stratum if there are several."""
        return max(each.estimate for each in self.evidence)


@dataclass(frozen=True, eq=False)
class Strata:
    """The classes or groups that each need to keep the promise, or one unnamed stratum of all rows.

    Attributes:
        names: Names of the strata, (S,).
        of: (N,) index of each row's stratum.
    """

    names: tuple[str, ...]
    of: Ints


def strata_of(outputs: ExitOutputs, within: Within | None) -> Strata:
    """The classes or groups that occur among all rows.

    Raises:
        PlanError: The task is regression, which has no classes, or the outputs have no groups.
    """
    if within is None:
        return Strata(("",), np.zeros(len(outputs.labels), np.int64))
    if within == "class" and outputs.task == "regression":
        raise PlanError(
            "within='class' needs classes, but these outputs are of a regression. Use "
            "within='group', or None."
        )
    values = outputs.labels if within == "class" else outputs.groups
    if values is None:
        raise PlanError(
            "within='group' needs groups, but these outputs have none. Pass groups= to "
            "ExitOutputs, or use within='class'."
        )
    found, of = np.unique(values, return_inverse=True)
    names = found.tolist()
    if within == "class" and outputs.class_names:
        names = [outputs.class_names[label] for label in names]
    return Strata(tuple(f"{within} {name}" for name in names), of.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything needed to build and test candidates, for N rows.

    Attributes:
        scores: (E - 1, N) scores of the early exits.
        level: Significance level of the tests.
    """

    outputs: ExitOutputs
    score: Score
    scores: Floats
    temperatures: tuple[float, ...] | None
    unit: CostUnit
    roles: Roles
    losses: Losses
    strata: Strata
    level: float

    def policy(self, thresholds: Sequence[float | None]) -> ExitPolicy:
        """The policy with these thresholds, without a promise."""
        return ExitPolicy(
            score=self.score,
            thresholds=tuple(thresholds),
            names=tuple(self.outputs.names),
            temperatures=self.temperatures,
            source=self.outputs.source,
        )


@dataclass(frozen=True, eq=False)
class Rungs:
    """Candidate thresholds per early exit, descending: rung r is the r-th, rung 0 disables it.

    Attributes:
        thresholds: One array per early exit; empty for an exit that can never fire.
    """

    thresholds: tuple[Floats, ...]

    def of(self, scores: Floats) -> Ints:
        """First rung at which each row fires, (E - 1, N); number of rungs + 1 if it never does."""
        return np.array(
            [
                np.searchsorted(-falling, -row, side="left") + 1
                for falling, row in zip(self.thresholds, scores, strict=True)
            ],
            np.int64,
        ).reshape(scores.shape)

    def at(self, state: Ints) -> tuple[float | None, ...]:
        """Thresholds of a state, which is one rung per early exit, (E - 1,)."""
        return tuple(
            float(falling[rung - 1]) if rung else None
            for falling, rung in zip(self.thresholds, state, strict=True)
        )


def rungs_of(scores: Floats, num_rungs: int = NUM_RUNGS) -> Rungs:
    """Rungs at quantiles of the scores (E - 1, N); every distinct score if there are few.

    Each threshold is halfway between two scores, so that rounding cannot change which rows fire.
    """
    return Rungs(tuple(_falling(row[np.isfinite(row)], num_rungs) for row in scores))


def _falling(scores: Floats, num_rungs: int) -> Floats:
    values, counts = np.unique(-scores, return_counts=True)
    values = -values  # distinct, falling
    below = np.append(values[1:], values[-1:])
    between = below + (values - below) / 2
    between = np.where(between > below, between, values)
    if len(values) <= num_rungs:
        return between
    ranks = np.ceil(np.arange(1, num_rungs + 1) * len(scores) / num_rungs)
    return between[np.unique(np.searchsorted(np.cumsum(counts), ranks, side="left"))]


def candidates_of(inputs: Inputs) -> list[Candidate]:
    """Build the candidates in the order of testing, which depends on the order rows only."""
    order = inputs.roles.order
    if not len(order):
        return []
    rungs = rungs_of(inputs.scores[:, order])
    first = rungs.of(inputs.scores)
    costs = _costs(inputs)
    whole = float(inputs.outputs.own_path_cost(inputs.unit)[-1])
    if not whole:
        return []
    rows = _order_rows(inputs, rungs, first, lambda enabled: costs(tuple(enabled.tolist())) / whole)
    return list(_with_evidence(inputs, rungs, first, learned_states(rows), costs))


def _order_rows(
    inputs: Inputs, rungs: Rungs, first: Ints, costs: Callable[[NDArray[np.bool_]], Floats]
) -> OrderRows:
    """The order rows, sorted by their values, so that no sum depends on the order they came in."""
    order, clusters = inputs.roles.order, inputs.roles.clusters
    losses, scores = inputs.losses.values[:, order] / inputs.losses.most, inputs.scores[:, order]
    place = np.lexsort(np.concatenate([[inputs.strata.of[order]], losses, scores]))
    order, losses, scores = order[place], losses[:, place], scores[:, place]
    return OrderRows(
        first=first[:, order],
        surprise=_surprise(scores),
        num_rungs=np.array([len(each) for each in rungs.thresholds], np.int64),
        losses=losses,
        strata=inputs.strata.of[order],
        units=np.arange(len(order)) if clusters is None else clusters[order],
        costs=costs,
    )


def _surprise(scores: Floats) -> Floats:
    """Compute the surprise of `OrderRows`, from ranks only: the scale of the score does not matter.

    Equal scores share their mean rank. Ranks are clipped to half a row from both ends, where the
    log odds are finite, so a score of minus infinity counts as the lowest finite one.
    """
    every = np.sort(scores[np.isfinite(scores)])
    if not len(every):
        return np.zeros(scores.shape)
    below = np.searchsorted(every, scores, "left") + np.searchsorted(every, scores, "right")
    share = np.clip(below / 2, 0.5, len(every) - 0.5) / len(every)
    found: Floats = logit(1 - share)
    return found


def _with_evidence(
    inputs: Inputs,
    rungs: Rungs,
    first: Ints,
    states: Ints,
    costs: Callable[[tuple[bool, ...]], Floats],
) -> Iterator[Candidate]:
    whole = float(inputs.outputs.own_path_cost(inputs.unit)[-1])
    values, every = inputs.losses.values, np.arange(first.shape[1])
    order = inputs.roles.order
    tested, learned = _by_stratum(inputs, inputs.roles.test), _by_stratum(inputs, order)
    for state, leaves in zip(states, walk(first, states), strict=True):
        losses = values[leaves, every]
        counts = np.bincount(leaves, minlength=len(values))
        mean = costs(tuple((state > 0).tolist())) @ counts / len(every)
        yield Candidate(
            policy=inputs.policy(rungs.at(state)),
            saved=float(1 - mean / whole),
            guessed=float(np.sort(losses[order]).mean()),
            evidence=tuple(
                evidence_of(
                    inputs.losses,
                    _sample(inputs, losses, one),
                    _sample(inputs, losses, two),
                    inputs.level,
                    inputs.roles.cluster_size,
                )
                for one, two in zip(tested, learned, strict=True)
            ),
        )


def _sample(inputs: Inputs, losses: Floats, rows: Ints) -> Sample:
    clusters = inputs.roles.clusters
    return Sample(losses[rows], None if clusters is None else clusters[rows])


def _by_stratum(inputs: Inputs, rows: Ints) -> list[Ints]:
    strata = inputs.strata.of[rows]
    return [rows[strata == stratum] for stratum in range(len(inputs.strata.names))]


def _costs(inputs: Inputs) -> Callable[[tuple[bool, ...]], Floats]:
    """A function from the enabled early exits to the cost of leaving at each exit."""

    @cache
    def costs(enabled: tuple[bool, ...]) -> Floats:
        policy = inputs.policy([0.0 if each else None for each in enabled])
        return policy.exit_cost(inputs.outputs, inputs.unit)

    return costs
