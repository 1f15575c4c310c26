"""What a share of the backbone's cost buys, without and with a policy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offramp.evaluation.quality.exits import ExitQuality
from offramp.evaluation.quality.mix import PolicyQuality
from offramp.evaluation.quality.oracle import OracleCurve
from offramp.task import Measure

SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class BudgetPoint:
    """The best that fits into a share of the backbone's cost, seen on the judged samples.

    Attributes:
        share: Of the cost of the backbone alone.
        exit: The best single exit whose own path fits, as when every sample is answered there
            and no other branch runs; None if none fits.
        value: Of that exit.
        policy: The best policy whose mean cost fits, with the branches passed on the way.
        policy_value: Of that policy.
        oracle: What the oracle reaches; None below the cheapest exit.
    """

    share: float
    exit: str | None
    value: float | None
    policy: str | None
    policy_value: float | None
    oracle: float | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)


def budget_points(
    exits: Sequence[ExitQuality],
    policies: Sequence[PolicyQuality],
    oracle: OracleCurve,
    measure: Measure,
) -> tuple[BudgetPoint, ...]:
    """One point each at 25, 50, 75 and 100 % of the backbone's cost."""
    whole = exits[-1].cost
    static = [(exit.cost / whole, exit.value, exit.name) for exit in exits]
    moving = [(policy.cost_share, policy.overall.value, policy.name) for policy in policies]
    return tuple(
        BudgetPoint(
            share,
            *_best(static, share, measure),
            *_best(moving, share, measure),
            oracle.value_at(share) if share >= oracle.cost_share[0] else None,
        )
        for share in SHARES
    )


def _best(
    points: Sequence[tuple[float, float, str]], share: float, measure: Measure
) -> tuple[str | None, float | None]:
    """Name and value of the best point within the share; of equals the cheapest."""
    within = sorted(point for point in points if point[0] <= share)
    if not within:
        return None, None
    values = [value for _, value, _ in within]
    best = int(np.argmax(values) if measure.higher_is_better else np.argmin(values))
    return within[best][2], values[best]
