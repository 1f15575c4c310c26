"""Rows of a comparison: branches, pairs of branches, static rivals and failed branches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.evaluation.intervals import Interval
from offramp.evaluation.trials import FailedTrial
from offramp.record import Record
from offramp.storage.arrays import checked_outputs
from offramp.task import Measure, Task, checked_labels, measure_of

_KIND_NAMES = {"slvit": "SL-ViT", "conv": "CNN", "backbone": "final layer"}


@dataclass(frozen=True)
class BranchRow(Record):
    """One branch at one cut over its seeds, or the final layer, which has no branch.

    Attributes:
        cut: Name of its cut; `final` for the final layer.
        branch: Label of its settings; `backbone` for the final layer.
        kind: Kind of the branch; `backbone` for the final layer.
        series: Name of the series of matching branches at other cuts: its kind, or its label if a
            cut has several branches of that kind.
        value: Mean over seeds of accuracy (0 to 1) or mean absolute error.
        std: Sample standard deviation over seeds (ddof 1); None if there are fewer than two seeds.
        seeds: Its seeds; empty for the final layer.
        interval: 95 % interval of `value`, over samples and seeds.
        rmse: Root of the mean squared error, mean over seeds; None for accuracy.
        params: Number of parameters of the branch.
        flops: FLOPs on its own path (a multiply-add is 2).
        flops_with_passed: The same, including the branches of its series at earlier cuts; None for
            the final layer, which belongs to no series.
        acceleration: FLOPs of the whole backbone divided by `flops`.
        ms: Milliseconds on its own path (mean over seeds), if measured.
        ms_with_passed: The same, including the branches of its series at earlier cuts.
        practical: False if a cheaper exit of the same kind, or the final layer if cheaper, is at
            least as good (paper, section 2.1); for the final layer, if any exit is.
        failed: Its failed trials; no number includes them.
    """

    cut: str
    branch: str
    kind: str
    series: str
    value: float
    std: float | None
    seeds: tuple[int, ...]
    interval: Interval
    rmse: float | None
    params: int
    flops: int
    flops_with_passed: int | None
    acceleration: float
    ms: float | None
    ms_with_passed: float | None
    practical: bool
    failed: tuple[FailedTrial, ...] = ()

    def value_text(self, measure: Measure) -> str:
        """Mean and spread over seeds, as printed in tables; the final layer has no spread."""
        if not self.seeds:
            return measure.text(self.value)
        return (
            f"{measure.text(self.value)} ± {'n/a' if self.std is None else measure.text(self.std)}"
        )

    def remark(self) -> str:
        """Text of the last column."""
        impractical = [] if self.practical else ["impractical"]
        return "; ".join([*impractical, *failure_texts(self.failed)])


@dataclass(frozen=True)
class FailedBranch(Record):
    """A branch at a cut whose trials all failed; `branch` is its label."""

    cut: str
    branch: str
    kind: str
    failed: tuple[FailedTrial, ...]

    def remark(self) -> str:
        """Text of the last column."""
        return "; ".join(failure_texts(self.failed))

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, with the keys of a `BranchRow`."""
        nothing = {field.name: None for field in fields(BranchRow)}
        return {**nothing, **super().as_json(), "seeds": [], "practical": False}


@dataclass(frozen=True)
class PairedDifference(Record):
    """A branch minus the baseline at the same cut, for the same samples and seeds.

    Attributes:
        branch: Label of the branch.
        baseline: Label of the baseline.
        difference: Difference in the unit of the measure; for accuracy a share (0.01 is one point).
        interval: 95 % interval over samples and seeds.
        seeds: Seeds that both have.
    """

    cut: str
    branch: str
    kind: str
    baseline: str
    baseline_kind: str
    difference: float
    interval: Interval
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rival(Record):
    """A way to spend less compute on every sample, such as smaller images.

    Attributes:
        name: Unique name, such as `80 px`.
        value: Accuracy (0 to 1) or mean absolute error.
        flops: FLOPs per sample (a multiply-add is 2).
        resolution: Side of its images in pixels.
        note: How it was made, such as `batch norm re-estimated on training images`.
        values: (N,) measure of each sample, for paired intervals; None for no intervals.
        rmse: Root of the mean squared error; None for accuracy, or if it is not known.
    """

    name: str
    value: float
    flops: int
    resolution: int
    note: str = ""
    values: NDArray[np.float64] | None = None
    rmse: float | None = None

    @classmethod
    def measured(
        cls,
        name: str,
        outputs: ArrayLike,
        labels: ArrayLike,
        *,
        flops: int,
        resolution: int,
        note: str = "",
        task: Task = "classification",
    ) -> Self:
        """Make a rival from its answers (N, K) on the same samples as the exits, in the same order.

        Raises:
            ShapeError: Answers, labels and task do not match.
        """
        answers = checked_outputs("outputs", outputs, "(samples, K)")
        measure = measure_of(task)
        values = measure.values(answers, checked_labels(labels, answers, task))
        mean, rmse = float(values.mean()), measure.root(values)
        return cls(name, mean, flops, resolution, note, values, rmse)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, without the values per sample."""
        return {key: value for key, value in super().as_json().items() if key != "values"}


@dataclass(frozen=True)
class RivalDifference(Record):
    """The most expensive exit of a series that costs no more than a rival, minus that rival.

    The exit is chosen by its cost only, so the choice does not bias the comparison.

    Attributes:
        branch: Label of its branch.
        flops: FLOPs of the exit on its own path.
        difference: Exit minus rival, in the unit of the measure.
        interval: 95 % interval of the difference; None if the rival has no values per sample.
    """

    cut: str
    branch: str
    kind: str
    flops: int
    difference: float
    interval: Interval | None


@dataclass(frozen=True, eq=False)
class RivalRow(Record):
    """A rival with the exits that cost no more.

    Attributes:
        interval: 95 % interval of its value; None if it has no values per sample.
        differences: One per series of branches that has such an exit.
    """

    rival: Rival
    interval: Interval | None
    differences: tuple[RivalDifference, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        row = super().as_json()
        return {**row.pop("rival"), **row}


def kind_name(kind: str) -> str:
    """Name of a kind of branch in texts."""
    return _KIND_NAMES.get(kind, kind)


def failure_texts(failed: Sequence[FailedTrial]) -> list[str]:
    """One text per reason, with the seeds that failed for it."""
    seeds: dict[str, list[str]] = {}
    for trial in failed:
        seeds.setdefault(trial.reason, []).append(str(trial.seed))
    return [
        f"failed: {reason} ({'seed' if len(of) == 1 else 'seeds'} {', '.join(of)})"
        for reason, of in seeds.items()
    ]
