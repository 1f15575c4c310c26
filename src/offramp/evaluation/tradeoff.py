"""Accuracy against compute: one point per exit, and which exits are worth having."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpError
from offramp.evaluation.intervals import Bootstrap, Interval, percentile_interval, wilson
from offramp.outputs import ExitOutputs
from offramp.table import scaled_flops, text_table
from offramp.task import Measure, measure_of


@dataclass(frozen=True)
class ExitPoint:
    """One exit on the accuracy-compute plane.

    Attributes:
        exit: Its number, from 0.
        name: Its cut, or the name of the last exit.
        measure: What `value` is: `accuracy`, 0 to 1, or `MAE`, the mean absolute error.
        value: Over all samples.
        interval: 95 % for `value`.
        flops: Cost of leaving here on its own path, in FLOPs (a multiply-add is 2).
        flops_with_passed: The same with the branches passed on the way.
        acceleration: Cost of the whole backbone divided by `flops`.
        ms: Measured milliseconds on its own path, if measured.
        ms_with_passed: The same with the branches passed on the way.
        practical: False when a cheaper exit is at least as good (paper, section 2.1).
    """

    exit: int
    name: str
    measure: str
    value: float
    interval: Interval
    flops: int
    flops_with_passed: int
    acceleration: float
    ms: float | None
    ms_with_passed: float | None
    practical: bool

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1.

        Raises:
            OfframpError: The task is regression.
        """
        if self.measure != "accuracy":
            raise OfframpError(f"a regression has no accuracy. Read value, its {self.measure}.")
        return self.value


@dataclass(frozen=True)
class Tradeoff(Sequence[ExitPoint]):
    """The exits in order; it prints as a table.

    Attributes:
        points: One per exit.
        measure: What their values are.
        samples: How many samples the values are over.
        method: How the intervals were made.
    """

    points: tuple[ExitPoint, ...]
    measure: Measure
    samples: int
    method: str

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> Any:
        return self.points[index]

    def __iter__(self) -> Iterator[ExitPoint]:
        return iter(self.points)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; an acceleration without bound is None."""
        rows = [asdict(point) for point in self.points]
        for row in rows:
            row[row.pop("measure").lower()] = row.pop("value")
            row["interval"] = [row["interval"]["low"], row["interval"]["high"]]
            row["acceleration"] = finite_or_none(row["acceleration"])
        return {"samples": self.samples, "interval_method": self.method, "exits": rows}

    def __str__(self) -> str:
        unit, (flops, passed) = scaled_flops(
            [point.flops for point in self.points],
            [point.flops_with_passed for point in self.points],
        )
        timed = self.points[0].ms is not None
        head = ["exit", f"{self.measure.name} {self.measure.unit}".strip(), "95 % interval"]
        head += [unit, "with passed", "acceleration", *(["ms"] if timed else []), ""]
        rows = [
            [
                point.name,
                self.measure.text(point.value),
                interval_text(self.measure, point.interval),
                own,
                cumulative,
                f"{point.acceleration:.2f}x",
                *([f"{point.ms:.2f}"] if timed else []),
                "" if point.practical else "impractical",
            ]
            for point, own, cumulative in zip(self.points, flops, passed, strict=True)
        ]
        return f"{text_table(head, rows)}\n{self.samples} samples; {self.method}."


def tradeoff(outputs: ExitOutputs) -> Tradeoff:
    """Place every exit on the accuracy-compute plane."""
    measure = measure_of(outputs.task)
    values = measure.values(outputs.outputs, outputs.labels)  # (E, N)
    means = values.mean(axis=1)
    intervals, method = _intervals(values, outputs)
    own, passed = outputs.own_path_cost(), outputs.with_passed_cost()
    practical = practical_exits(measure, means, own)
    own_ms, passed_ms = _milliseconds(outputs)
    points = tuple(
        ExitPoint(
            exit=exit,
            name=name,
            measure=measure.name,
            value=float(means[exit]),
            interval=intervals[exit],
            flops=int(own[exit]),
            flops_with_passed=int(passed[exit]),
            acceleration=acceleration(own[-1], own[exit]),
            ms=own_ms[exit],
            ms_with_passed=passed_ms[exit],
            practical=practical[exit],
        )
        for exit, name in enumerate(outputs.names)
    )
    return Tradeoff(points, measure, values.shape[1], method)


def practical_exits(
    measure: Measure, values: Sequence[float] | NDArray[np.float64], costs: NDArray[np.float64]
) -> list[bool]:
    """Whether each exit is better than every cheaper one (paper, section 2.1)."""
    return [
        all(
            measure.better(value, other)
            for other, other_cost in zip(values, costs, strict=True)
            if other_cost < cost
        )
        for value, cost in zip(values, costs, strict=True)
    ]


def acceleration(whole: float, own: float) -> float:
    """How many times cheaper than the whole backbone; infinite for an exit that costs nothing."""
    return float(whole / own) if own else math.inf


def finite_or_none(value: float) -> float | None:
    """The value as JSON can hold it."""
    return value if math.isfinite(value) else None


def interval_text(measure: Measure, interval: Interval) -> str:
    """An interval as tables print it."""
    return f"{measure.text(interval.low)} to {measure.text(interval.high)}"


def _intervals(values: NDArray[np.float64], outputs: ExitOutputs) -> tuple[list[Interval], str]:
    independent = outputs.ids is None or len(np.unique(outputs.ids)) == len(outputs.ids)
    if outputs.task == "classification" and independent:
        shares = values.mean(axis=1)
        return [wilson(float(share), values.shape[1]) for share in shares], "intervals: Wilson"
    bootstrap = Bootstrap()
    draws = bootstrap.means([row[np.newaxis] for row in values], outputs.ids)
    return (
        [percentile_interval(column) for column in draws.T],
        f"intervals: bootstrap over samples, {bootstrap.draws} draws",
    )


def _milliseconds(outputs: ExitOutputs) -> tuple[list[float | None], list[float | None]]:
    if outputs.stage_ms is None:
        untimed: list[float | None] = [None] * len(outputs.names)
        return untimed, untimed
    return outputs.own_path_cost("ms").tolist(), outputs.with_passed_cost("ms").tolist()
