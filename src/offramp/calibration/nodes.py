"""Nodes: the candidates on a learned path, with what they save and what their losses show."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from offramp.calibration.evidence import Evidence, evidence_of
from offramp.calibration.levels import Levels, levels_of
from offramp.calibration.losses import Losses
from offramp.calibration.parts import Parts
from offramp.calibration.path import Ground, learned_path, walk
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs, Unit
from offramp.policy.policy import ExitPolicy
from offramp.policy.promise import Within
from offramp.policy.scores import Score


@dataclass(frozen=True, eq=False)
class Node:
    """One candidate.

    Attributes:
        saved: Share of the backbone's cost saved on all given rows.
        guessed: Mean loss on the rows that the path was learned on.
        evidence: Of the tested rows, one for each stratum.
    """

    policy: ExitPolicy
    saved: float
    guessed: float
    evidence: tuple[Evidence, ...]

    @property
    def estimate(self) -> float:
        """Mean loss on the tested rows; of the worst stratum, where there are several."""
        return max(each.estimate for each in self.evidence)


@dataclass(frozen=True, eq=False)
class Strata:
    """Classes or groups that a promise holds for apart; one without a name for all rows.

    Attributes:
        names: As texts, (S,).
        of: Number of each row's stratum, (N,).
    """

    names: tuple[str, ...]
    of: NDArray[np.int64]


def strata_of(outputs: ExitOutputs, within: Within | None) -> Strata:
    """The classes or groups that occur among all rows.

    Raises:
        PlanError: A regression has no classes, or the outputs have no groups.
    """
    if within is None:
        return Strata(("",), np.zeros(len(outputs.labels), np.int64))
    if within == "class" and outputs.task == "regression":
        raise PlanError("within='class' needs classes, and these outputs are a regression's.")
    values = outputs.labels if within == "class" else outputs.groups
    if values is None:
        raise PlanError(
            "within='group' needs groups, and these outputs have none. Give ExitOutputs groups=, "
            "or use within='class'."
        )
    names, of = np.unique(values, return_inverse=True)
    return Strata(tuple(f"{within} {name}" for name in names.tolist()), of.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Field:
    """Everything that candidates are made of and judged by, on N rows.

    Attributes:
        level: Chance of error that a test may have.
    """

    outputs: ExitOutputs
    score: Score
    temperatures: tuple[float, ...] | None
    unit: Unit
    parts: Parts
    losses: Losses
    strata: Strata
    level: float


def nodes_of(field: Field) -> list[Node]:
    """Candidates in the order they are to be tested, from the order rows only."""
    scores = field.score.of(field.outputs, field.temperatures)
    order = field.parts.order
    levels = levels_of(scores[:, order])
    first = levels.of(scores)
    costs = _costs(field)
    ground = Ground(
        first=first[:, order],
        num_levels=np.array([len(each) for each in levels.thresholds], np.int64),
        losses=field.losses.values[:, order] / field.losses.scale,
        strata=field.strata.of[order],
        costs=lambda enabled: costs(tuple(enabled.tolist())),
    )
    return list(_judged(field, levels, first, learned_path(ground), costs))


def _judged(
    field: Field,
    levels: Levels,
    first: NDArray[np.int64],
    states: NDArray[np.int64],
    costs: Callable[[tuple[bool, ...]], NDArray[np.float64]],
) -> Iterator[Node]:
    whole = float(field.outputs.own_path_cost(field.unit)[-1])
    values, rows = field.losses.values, np.arange(first.shape[1])
    tested, guessed = _rows(field, field.parts.test), _rows(field, field.parts.order)
    for state, leaves in zip(states, walk(first, states), strict=True):
        losses = values[leaves, rows]
        counts = np.bincount(leaves, minlength=len(values))
        mean = costs(tuple((state > 0).tolist())) @ counts / max(1, len(rows))
        yield Node(
            policy=_policy(field, levels.at(state)),
            saved=float(1 - mean / whole) if whole else 0.0,
            guessed=float(losses[field.parts.order].mean()),
            evidence=tuple(
                evidence_of(
                    field.losses.goal, losses[one], losses[two], field.level, field.losses.bound
                )
                for one, two in zip(tested, guessed, strict=True)
            ),
        )


def _rows(field: Field, part: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of a part by stratum."""
    strata = field.strata.of[part]
    return [part[strata == stratum] for stratum in range(len(field.strata.names))]


def _policy(field: Field, thresholds: tuple[float | None, ...]) -> ExitPolicy:
    return ExitPolicy(
        score=field.score,
        thresholds=thresholds,
        names=tuple(field.outputs.names),
        temperatures=field.temperatures,
        source=field.outputs.source,
    )


def _costs(field: Field) -> Callable[[tuple[bool, ...]], NDArray[np.float64]]:
    """Cost of leaving at each exit, from which early exits are enabled."""

    @cache
    def costs(enabled: tuple[bool, ...]) -> NDArray[np.float64]:
        policy = _policy(field, tuple(0.0 if each else None for each in enabled))
        return policy.exit_cost(field.outputs, field.unit)

    return costs
