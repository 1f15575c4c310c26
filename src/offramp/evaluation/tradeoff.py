"""Accuracy against compute: one point per exit, and which exits are practical."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.evaluation.intervals import Interval, mean_interval, units_text, wilson
from offramp.outputs import ExitOutputs, check_outputs
from offramp.record import Record, plain
from offramp.table import Table, scaled_flops
from offramp.task import Measure


@dataclass(frozen=True)
class ExitPoint(Record):
    """One exit on the accuracy-compute plane.

    Attributes:
        exit: Number of the exit, from 0.
        name: Name of its cut, or of the last exit.
        measure: What `value` measures: accuracy (0 to 1) or the mean absolute error.
        value: Mean over all samples.
        interval: 95 % interval of `value`.
        rmse: Root of the mean squared error; None for accuracy.
        flops: Cost of leaving here on its own path, in FLOPs (a multiply-add is 2).
        flops_with_passed: The same, including the branches passed on the way.
        acceleration: Cost of the whole backbone divided by `flops`.
        ms: Milliseconds on its own path, if measured.
        ms_with_passed: The same, including the branches passed on the way.
        practical: False if a cheaper exit is at least as good (paper, section 2.1).
    """

    exit: int
    name: str
    measure: str
    value: float
    interval: Interval
    rmse: float | None
    flops: int
    flops_with_passed: int
    acceleration: float
    ms: float | None
    ms_with_passed: float | None
    practical: bool


@dataclass(frozen=True)
class Tradeoff(Record, Sequence[ExitPoint]):
    """The exits in order; `str` prints a table.

    Attributes:
        points: One per exit.
        measure: What the values measure.
        samples: Number of samples.
        method: Numbers of samples and independent units, and how the intervals were computed.
    """

    points: tuple[ExitPoint, ...]
    measure: Measure
    samples: int
    method: str

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return self.points[index]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; an infinite acceleration is None."""
        return {
            "samples": self.samples,
            "interval_method": self.method,
            "exits": plain(self.points),
        }

    def table(self) -> Table:
        """One row per exit."""
        unit, (flops, passed) = scaled_flops(
            [point.flops for point in self.points],
            [point.flops_with_passed for point in self.points],
        )
        return Table.of(
            ("exit", [point.name for point in self]),
            (self.measure.head, [self.measure.text(point.value) for point in self]),
            ("95 % interval", [point.interval.text(self.measure) for point in self]),
            (self.measure.root_head, self.measure.root_texts(point.rmse for point in self)),
            (unit, flops),
            ("with passed", passed),
            ("acceleration", [factor_text(point.acceleration) for point in self]),
            ("ms", [f"{point.ms:.2f}" for point in self if point.ms is not None]),
            ("", ["" if point.practical else "impractical" for point in self]),
        )

    def __str__(self) -> str:
        notes = [f"{self.method}.", *([self.measure.note] if self.measure.note else [])]
        return "\n".join([str(self.table()), *notes])


def tradeoff(outputs: ExitOutputs) -> Tradeoff:
    """Place every exit on the accuracy-compute plane.

    Raises:
        ArgumentError: It is not given ExitOutputs.
    """
    check_outputs(outputs)
    measure = outputs.measure
    values = measure.values(outputs.outputs, outputs.labels)  # (E, N)
    means = values.mean(axis=1)
    intervals, method = _intervals(values, outputs, measure)
    own, passed = outputs.own_path_cost(), outputs.with_passed_cost()
    placed = list(zip(means, own, strict=True))
    own_ms, passed_ms = _milliseconds(outputs)
    points = tuple(
        ExitPoint(
            exit=exit,
            name=name,
            measure=measure.name,
            value=float(means[exit]),
            interval=intervals[exit],
            rmse=measure.root(values[exit]),
            flops=int(own[exit]),
            flops_with_passed=int(passed[exit]),
            acceleration=acceleration(own[-1], own[exit]),
            ms=own_ms[exit],
            ms_with_passed=passed_ms[exit],
            practical=practical(measure, *placed[exit], placed),
        )
        for exit, name in enumerate(outputs.names)
    )
    return Tradeoff(points, measure, values.shape[1], method)


def practical(
    measure: Measure, value: float, cost: float, others: Iterable[tuple[float, float]]
) -> bool:
    """Whether an exit beats all cheaper ones of these (value, cost) pairs (paper, section 2.1)."""
    return all(measure.better(value, other) for other, spent in others if spent < cost)


def acceleration(whole: float, own: float) -> float:
    """How many times cheaper than the whole backbone; infinite for an exit without cost.

    It is 1 if the backbone has no cost either.
    """
    if own:
        return float(whole / own)
    return math.inf if whole else 1.0


def factor_text(factor: float) -> str:
    """An acceleration, as printed in tables."""
    return f"{factor:.2f}x" if math.isfinite(factor) else "free"


def _intervals(
    values: NDArray[np.float64], outputs: ExitOutputs, measure: Measure
) -> tuple[list[Interval], str]:
    """The interval of each exit's values (E, N), and a text on how they were computed."""
    units, samples = outputs.units, values.shape[1]
    if units is None and outputs.task == "classification":
        intervals = [wilson(float(share), samples) for share in values.mean(axis=1)]
        method = "Wilson"
    else:
        intervals = [mean_interval(row, units, measure.bounds) for row in values]
        method = f"Student's t over {'samples' if units is None else 'units'}"
    return intervals, f"{units_text(samples, units)}; intervals: {method}"


def _milliseconds(outputs: ExitOutputs) -> tuple[list[float | None], list[float | None]]:
    if outputs.stage_ms is None:
        untimed: list[float | None] = [None] * len(outputs.names)
        return untimed, untimed
    return outputs.own_path_cost("ms").tolist(), outputs.with_passed_cost("ms").tolist()
