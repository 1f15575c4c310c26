"""Simulation: what a server with a deadline did, one row for each way to answer."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from offramp.table import Table, scaled_flops
from offramp.task import Measure

BY_DEADLINE = ", by the deadline"  # follows a policy's name
_OVERLOADED = 0.995  # of the time busy; a queue that empties now and then leaves more of it


@dataclass(frozen=True)
class SimulationRow:
    """One way to answer all requests.

    Attributes:
        name: What answers.
        value: Accuracy over all requests, 0 to 1, where a missed one counts as wrong; for a
            regression the mean absolute error, where a missed one counts as answered
            with the median of the labels.
        value_in_time: Over those answered in time; None if there are none.
        missed: Share of requests without an answer at the deadline, 0 to 1.
        refused: Share that the server refused, since no exit was expected to be in time.
        p50_ms: Median response time, from sending to the answer's arrival, over all requests;
            a refused one never gets an answer, so its time is infinite.
        p95_ms: The 95th percentile.
        p99_ms: The 99th percentile.
        exits: Share of requests that each exit answers, in time or late.
        mean_ms: The server's work per request.
        mean_flops: The same in FLOPs (a multiply-add is 2).
        utilisation: Share of time that the server works, from its first request to its last answer.
    """

    name: str
    value: float
    value_in_time: float | None
    missed: float
    refused: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    exits: tuple[float, ...]
    mean_ms: float
    mean_flops: float
    utilisation: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; an infinite time is None."""
        values = asdict(self)
        times = {key: values[key] for key in ("p50_ms", "p95_ms", "p99_ms")}
        return values | {key: ms if math.isfinite(ms) else None for key, ms in times.items()}


@dataclass(frozen=True)
class Simulation:
    """The rows, and what they are of; it prints as a table.

    Attributes:
        rows: Full network, smallest exit, each policy as it is and by the deadline.
        measure: What their values are.
        exits: Names of the exits.
        requests: How many were sent.
        deadline_ms: From sending to the answer's arrival.
        settings: Arrivals, transmission times and seed, as JSON values.
        seconds: How long the simulation took.
    """

    rows: tuple[SimulationRow, ...]
    measure: Measure
    exits: tuple[str, ...]
    requests: int
    deadline_ms: float
    settings: Mapping[str, Any]
    seconds: float = field(compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[SimulationRow]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> SimulationRow:
        return {row.name: row for row in self.rows}[name]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "measure": self.measure.name,
            "exits": list(self.exits),
            "requests": self.requests,
            "deadline_ms": self.deadline_ms,
            **self.settings,
            "seconds": self.seconds,
            "rows": [row.as_json() for row in self.rows],
        }

    def __str__(self) -> str:
        unit, (flops,) = scaled_flops([row.mean_flops for row in self.rows])
        head = ["answers", self.measure.head, "in time", "missed %", "p50 ms", "p95 ms", "p99 ms"]
        head += [*(f"{name} %" for name in self.exits), unit, "work ms", "busy %"]
        rows = [
            [*self._quality(row), *_times(row), *_shares(row), of_row, *_load(row)]
            for row, of_row in zip(self.rows, flops, strict=True)
        ]
        return f"{Table(head, rows)}\n{self._foot()}"

    def _quality(self, row: SimulationRow) -> list[str]:
        in_time = "" if row.value_in_time is None else self.measure.text(row.value_in_time)
        return [row.name, self.measure.text(row.value), in_time, f"{100 * row.missed:.2f}"]

    def _foot(self) -> str:
        unanswered = (
            "counts as wrong"
            if self.measure.higher_is_better
            else "counts as the median of the labels"
        )
        return (
            f"{self.requests} requests, deadline {self.deadline_ms:g} ms after sending; one that "
            f"misses it {unanswered}. Times are over all requests; - is no answer. Exits are "
            "shares of all requests; what is missing to 100 % was refused."
            f"{self._overloaded()}"
        )

    def _overloaded(self) -> str:
        # By the deadline a queue stays short, however busy the server is.
        patient = [row for row in self.rows if not row.name.endswith(BY_DEADLINE)]
        names = ", ".join(row.name for row in patient if row.utilisation > _OVERLOADED)
        return (
            f" Overloaded, so its queue grows as long as requests come: {names}." if names else ""
        )


def _times(row: SimulationRow) -> list[str]:
    times = (row.p50_ms, row.p95_ms, row.p99_ms)
    return [f"{ms:.1f}" if math.isfinite(ms) else "-" for ms in times]


def _shares(row: SimulationRow) -> list[str]:
    return [f"{100 * share:.1f}" for share in row.exits]


def _load(row: SimulationRow) -> list[str]:
    return [f"{row.mean_ms:.2f}", f"{100 * row.utilisation:.1f}"]
