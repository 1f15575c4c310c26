"""Absence: how good each exit is where an input is absent, beside how good it is with all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offramp.errors import ShapeError
from offramp.evaluation.intervals import Interval, mean_interval, units_text
from offramp.outputs import ExitOutputs, check_outputs
from offramp.record import Record, plain
from offramp.table import Table
from offramp.task import Measure, measure_of


@dataclass(frozen=True)
class AbsenceRow(Record):
    """One exit where one input is absent.

    Attributes:
        absent: Name of the input.
        exit: Name of the exit.
        value: Mean accuracy or absolute error with all inputs.
        without: The same without the input; None where the exit refuses.
        difference: `without` less `value`, sample by sample.
        interval: 95 % interval of the difference.
    """

    absent: str
    exit: str
    value: float
    without: float | None
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Absence(Record, Sequence[AbsenceRow]):
    """Every exit without each input that some exit can do without; `str` prints a table.

    Attributes:
        rows: One for each of these inputs and each exit.
        measure: What the values measure.
        method: Numbers of samples and independent units, and how the intervals were computed.
    """

    rows: tuple[AbsenceRow, ...]
    measure: Measure
    method: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"interval_method": self.method, "rows": plain(self.rows)}

    def table(self) -> Table:
        """One row per input and exit."""
        measure = self.measure
        return Table.of(
            ("absent", [row.absent for row in self.rows]),
            ("exit", [row.exit for row in self.rows]),
            (f"{measure.head} with all", [measure.text(row.value) for row in self.rows]),
            ("without", [_text(row, measure) for row in self.rows]),
            (f"{measure.difference_head} more", [_gained(row, measure) for row in self.rows]),
            ("95 % interval", [_interval(row, measure) for row in self.rows]),
            title="Where an input is absent",
            caption=f"The same test samples with and without an input; {self.method}.",
            left=2,
        )

    def __str__(self) -> str:
        return f"{self.table()}\n{self.method}."


def compare_absence(whole: ExitOutputs, without: Mapping[str, ExitOutputs]) -> Absence:
    """Compare the exits with all inputs and without some.

    Args:
        whole: Outputs of every exit.
        without: For each absent input, by name, outputs of the exits that answer without it, on the
            same samples: what `MultiExit.collect(data, without=...)` gives.

    Raises:
        ShapeError: Outputs are of other samples or of exits that `whole` has not.
    """
    check_outputs(whole, "whole")
    measure = measure_of(whole.task)
    values = dict(zip(whole.names, measure.values(whole.outputs, whole.labels), strict=True))
    rows: list[AbsenceRow] = []
    for absent, quiet in without.items():
        check_outputs(quiet, f"without[{absent!r}]")
        _check_same_samples(absent, whole, quiet)
        found = dict(zip(quiet.names, measure.values(quiet.outputs, quiet.labels), strict=True))
        for exit, own in values.items():
            value = float(own.mean())
            if exit not in found:
                rows.append(AbsenceRow(absent, exit, value, None, None, None))
                continue
            less = found[exit] - own
            interval = mean_interval(less, whole.units, measure.difference_bounds)
            means = float(found[exit].mean()), float(less.mean())
            rows.append(AbsenceRow(absent, exit, value, *means, interval))
    method = f"{units_text(values[whole.names[0]].size, whole.units)}; intervals: paired"
    return Absence(tuple(rows), measure, method)


def _check_same_samples(absent: str, whole: ExitOutputs, quiet: ExitOutputs) -> None:
    others = sorted(set(quiet.names) - set(whole.names))
    if others or not np.array_equal(whole.labels, quiet.labels):
        what = f"exits {others} that the others lack" if others else "other labels"
        raise ShapeError(
            f"the outputs without {absent!r} have {what}. Collect both from one model on the same "
            "samples."
        )


def _text(row: AbsenceRow, measure: Measure) -> str:
    return "refuses" if row.without is None else measure.text(row.without)


def _gained(row: AbsenceRow, measure: Measure) -> str:
    return "" if row.difference is None else measure.difference_text(row.difference)


def _interval(row: AbsenceRow, measure: Measure) -> str:
    return "" if row.interval is None else row.interval.difference_text(measure)
