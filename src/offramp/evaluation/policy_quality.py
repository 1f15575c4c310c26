"""Quality of a policy: which exits answer, and how much each class and group loses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.intervals import Interval, mean_interval
from offramp.evaluation.oracle import OracleCurve
from offramp.outputs import CostUnit, ExitOutputs
from offramp.policy import ExitPolicy, Promise
from offramp.record import Record
from offramp.table import counted
from offramp.task import Measure

Kind = Literal["all", "class", "group"]


@dataclass(frozen=True)
class Part(Record):
    """The effect of a policy on all samples, or on those of one class or group.

    Attributes:
        kind: Whether the samples are all, of a class or of a group.
        name: Name of the class or group; empty for all samples.
        samples: Number of samples.
        mix: Share of samples that each exit answers; sums to 1.
        value: Accuracy (0 to 1) or mean absolute error of the policy.
        rmse: Root of its mean squared error; None for accuracy.
        final: The same for the final exit.
        drop: Loss of the policy compared with the final exit: drop in accuracy, or rise in error.
        interval: 95 % interval of `drop`.
        clusters: Number of clusters of these samples (equal ids make one too); None if all samples
            are independent.
    """

    kind: Kind
    name: str
    samples: int
    mix: tuple[float, ...]
    value: float
    rmse: float | None
    final: float
    drop: float
    interval: Interval
    clusters: int | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()

    @property
    def unit(self) -> str:
        """What is independent: "sample", or "cluster" where samples share one."""
        return "sample" if self.clusters is None else "cluster"

    @property
    def size(self) -> str:
        """Number of samples, and of the clusters that they are in, as text."""
        within = "" if self.clusters is None else f" in {counted(self.clusters, 'cluster')}"
        return f"{counted(self.samples, 'sample')}{within}"


@dataclass(frozen=True)
class PolicyQuality(Record):
    """Quality of one policy on the evaluated samples.

    Attributes:
        name: Name in tables and figures.
        rule: The policy and its promise, in words.
        overall: All samples together.
        parts: Each class and each group, the largest drop first.
        mean_cost: Mean cost per sample, including the branches passed on the way, in the unit of
            the Quality.
        cost_share: `mean_cost` divided by the cost of the backbone alone.
        oracle_gap: `cost_share` minus that of the oracle at the same value: what better scores or
            thresholds could still save.
    """

    name: str
    rule: str
    overall: Part
    parts: tuple[Part, ...]
    mean_cost: float
    cost_share: float
    oracle_gap: float

    def against(self, promise: Promise | None, measure: Measure) -> str:
        """What these samples say about a promise of a drop or rise; empty if they agree with it.

        A promise is about new samples of the same kind. So a measured drop above the limit does not
        contradict it as long as the interval includes smaller ones.
        """
        if promise is None or promise.goal == "max_disagreement" or promise.within:
            return ""
        limit, interval = promise.limit, self.overall.interval
        if interval.high <= limit:
            return ""
        allowed = f"{measure.difference_text(limit).lstrip('+')}"
        allowed += " points" if measure.higher_is_better else ""
        what = "drop" if measure.higher_is_better else f"rise of {measure.head}"
        found = (
            f"{self.name}: on these {self.overall.size} the interval of the {what}, "
            f"{interval.difference_text(measure)}"
        )
        if interval.low <= limit:
            return (
                f"{found}, extends above the promised {allowed}. These {self.overall.unit}s are "
                "too few to confirm the promise, which rests on the calibration samples, but do "
                "not contradict it."
            )
        return (
            f"{found}, lies above the promised {allowed}. Either these samples or those of the "
            "calibration are an unlucky draw, or the two are of different kinds. Check that both "
            "were drawn at random from the same population, and measure on more "
            f"{self.overall.unit}s."
        )

    @property
    def saved(self) -> float:
        """Share of the backbone's cost saved; negative when the exits cost more than they save."""
        return 1 - self.cost_share

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**super().as_json(), "saved": self.saved}


def drop_head(measure: Measure) -> str:
    """Head of a column of drops."""
    return "drop, points" if measure.higher_is_better else f"rise of {measure.head}"


def judge_policy(
    name: str,
    policy: ExitPolicy,
    outputs: ExitOutputs,
    oracle: OracleCurve,
    unit: CostUnit,
    class_names: Sequence[str],
    values: NDArray[np.float64],
) -> PolicyQuality:
    """Evaluate one policy from the measure of all answers (E, N).

    Classes are named by `class_names`, or by their numbers if it is empty.

    Raises:
        ShapeError: The policy is for other exits.
    """
    leaves = policy.choose(outputs)
    mean_cost = float(policy.exit_cost(outputs, unit)[leaves].mean())
    share = mean_cost / float(outputs.own_path_cost(unit)[-1])
    (overall,) = _parts("all", np.full(len(leaves), ""), leaves, values, outputs)
    parts = [
        part
        for kind, names in _divisions(outputs, class_names)
        for part in _parts(kind, names, leaves, values, outputs)
    ]
    return PolicyQuality(
        name=name,
        rule=str(policy),
        overall=overall,
        parts=tuple(sorted(parts, key=lambda part: -part.drop)),
        mean_cost=mean_cost,
        cost_share=share,
        oracle_gap=share - oracle.cost_share_for(overall.value),
    )


def _divisions(
    outputs: ExitOutputs, class_names: Sequence[str]
) -> Iterator[tuple[Kind, NDArray[np.generic]]]:
    """The class and the group of each sample, (N,) each."""
    if outputs.task == "classification":
        yield "class", np.array(class_names)[outputs.labels] if class_names else outputs.labels
    if outputs.groups is not None:
        yield "group", outputs.groups


def _parts(
    kind: Kind,
    of: NDArray[Any],
    leaves: NDArray[np.int64],
    values: NDArray[np.float64],
    outputs: ExitOutputs,
) -> Iterator[Part]:
    """One part per value of `of` (N,), from exits (N,) and the measure of all answers (E, N)."""
    measure = outputs.measure
    names, place, counts = np.unique(of, return_inverse=True, return_counts=True)
    chosen, final = values[leaves, np.arange(len(leaves))], values[-1]
    loss = final - chosen if measure.higher_is_better else chosen - final
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])
    for name, rows in zip(names, members, strict=True):
        mix = np.bincount(leaves[rows], minlength=len(values)) / len(rows)
        units = None if outputs.units is None else outputs.units[rows]
        yield Part(
            kind=kind,
            name=str(name),
            samples=len(rows),
            mix=tuple(mix.tolist()),
            value=float(chosen[rows].mean()),
            rmse=measure.root(chosen[rows]),
            final=float(final[rows].mean()),
            drop=float(loss[rows].mean()),
            interval=mean_interval(loss[rows], units, measure.difference_bounds),
            clusters=None if units is None else len(np.unique(units)),
        )
