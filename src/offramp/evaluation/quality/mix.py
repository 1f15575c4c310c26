"""What a policy does: which exit answers whom, and what each class and group loses by it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.intervals import CONFIDENCE, Bootstrap, Interval, percentile_interval
from offramp.evaluation.quality.oracle import OracleCurve
from offramp.outputs import ExitOutputs, Unit
from offramp.policy import ExitPolicy
from offramp.task import Measure, measure_of

Kind = Literal["all", "class", "group"]


@dataclass(frozen=True)
class MixRow:
    """What a policy does to all samples, or to those of one class or group.

    Attributes:
        kind: What the samples have in common.
        name: The class number or the group; empty for all samples.
        samples: How many there are.
        mix: Share of them that each exit answers; they sum to 1.
        value: Accuracy, 0 to 1, or mean absolute error of the policy.
        final: The same of the final exit.
        drop: What the policy loses against the final exit: accuracy, or the rise in error.
        interval: 95 % for `drop`.
    """

    kind: Kind
    name: str
    samples: int
    mix: tuple[float, ...]
    value: float
    final: float
    drop: float
    interval: Interval

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**asdict(self), "interval": [self.interval.low, self.interval.high]}


@dataclass(frozen=True)
class PolicyQuality:
    """One policy on the judged samples.

    Attributes:
        name: What tables and figures call it.
        rule: The policy in words, with its promise.
        overall: Over all samples.
        parts: Each class and each group, the largest drop first.
        mean_cost: Per sample, with the branches passed on the way, in the quality's unit.
        cost_share: `mean_cost` over the cost of the backbone alone.
        oracle_gap: `cost_share` less the oracle's for the same value: what a better score or
            better thresholds could still save.
    """

    name: str
    rule: str
    overall: MixRow
    parts: tuple[MixRow, ...]
    mean_cost: float
    cost_share: float
    oracle_gap: float

    @property
    def saved(self) -> float:
        """Share of the backbone's cost saved; negative when the exits cost more than they save."""
        return 1 - self.cost_share

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        rows = {"overall": self.overall.as_json(), "parts": [row.as_json() for row in self.parts]}
        return {**asdict(self), **rows, "saved": self.saved}


def policy_quality(
    name: str, policy: ExitPolicy, outputs: ExitOutputs, oracle: OracleCurve, unit: Unit
) -> PolicyQuality:
    """Judge one policy.

    Raises:
        ShapeError: The policy is for other exits.
    """
    leaves = policy.choose(outputs)
    values = measure_of(outputs.task).values(outputs.outputs, outputs.labels)  # (E, N)
    mean_cost = float(policy.exit_cost(outputs, unit)[leaves].mean())
    share = mean_cost / float(outputs.own_path_cost(unit)[-1])
    (overall,) = _rows("all", np.full(len(leaves), ""), leaves, values, outputs)
    divisions = _divisions(outputs)
    parts = [row for pair in divisions for row in _rows(*pair, leaves, values, outputs)]
    return PolicyQuality(
        name=name,
        rule=str(policy),
        overall=overall,
        parts=tuple(sorted(parts, key=lambda row: -row.drop)),
        mean_cost=mean_cost,
        cost_share=share,
        oracle_gap=share - oracle.cost_share_for(overall.value),
    )


def _divisions(outputs: ExitOutputs) -> Iterator[tuple[Kind, NDArray[np.generic]]]:
    if outputs.task == "classification":
        yield "class", outputs.labels
    if outputs.groups is not None:
        yield "group", outputs.groups


def _rows(
    kind: Kind,
    of: NDArray[Any],
    leaves: NDArray[np.int64],
    values: NDArray[np.float64],
    outputs: ExitOutputs,
) -> list[MixRow]:
    """One row for each value of `of` (N,)."""
    exits = len(values)
    names, part, counts = np.unique(of, return_inverse=True, return_counts=True)
    chosen, final = values[leaves, np.arange(len(leaves))], values[-1]
    loss = _losses(measure_of(outputs.task), chosen, final)
    mixes = np.bincount(part * exits + leaves, minlength=len(names) * exits)
    means = [np.bincount(part, column) / counts for column in (chosen, final, loss)]
    intervals = _intervals(loss, part, counts, outputs)
    return [
        MixRow(
            kind, str(name), int(count), tuple((mix / count).tolist()), value, own, drop, interval
        )
        for name, count, mix, value, own, drop, interval in zip(
            names,
            counts,
            mixes.reshape(-1, exits),
            *(column.tolist() for column in means),
            intervals,
            strict=True,
        )
    ]


def _losses(
    measure: Measure, chosen: NDArray[np.float64], final: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What each sample loses against the final exit (N,); negative where it wins."""
    return final - chosen if measure.higher_is_better else chosen - final


def _intervals(
    loss: NDArray[np.float64],
    part: NDArray[np.int64],
    counts: NDArray[np.int64],
    outputs: ExitOutputs,
) -> list[Interval]:
    if outputs.task == "classification" and not _repeats(outputs):
        lost, won = (np.bincount(part, loss == sign, len(counts)) for sign in (1, -1))
        return [paired_interval(*row) for row in zip(lost, won, counts.tolist(), strict=True)]
    ids = outputs.ids
    members = [np.flatnonzero(part == place) for place in range(len(counts))]
    return [
        percentile_interval(
            Bootstrap().means([loss[np.newaxis, rows]], None if ids is None else ids[rows])[:, 0]
        )
        for rows in members
    ]


def _repeats(outputs: ExitOutputs) -> bool:
    return outputs.ids is not None and len(np.unique(outputs.ids)) < len(outputs.ids)


def paired_interval(lost: float, won: float, samples: int) -> Interval:
    """95 % for the share lost less the share won, of `samples` independent pairs.

    Wald's with one lost and one won sample added (Bonett and Price 2012), which holds on few
    samples and where nothing was lost.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    lost_share, won_share = (lost + 1) / (samples + 2), (won + 1) / (samples + 2)
    centre = lost_share - won_share
    reach = z * ((lost_share + won_share - centre**2) / (samples + 2)) ** 0.5
    return Interval(max(-1.0, centre - reach), min(1.0, centre + reach))
