"""Simulation: the results of a simulated server, one row per way of answering."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp.record import Record
from offramp.table import Table, scaled_flops
from offramp.task import Measure

BY_DEADLINE = ", by the deadline"  # follows a policy's name
_OVERLOADED = 0.995  # utilisation above which a server counts as overloaded


@dataclass(frozen=True)
class SimulationRow(Record):
    """Results of one way of answering all requests.

    Attributes:
        name: Name of the way of answering.
        value: Accuracy (0 to 1) over all requests, counting a missed one as wrong; for a
            regression, the mean absolute error, counting a missed one as answered with the median
            of the labels.
        value_in_time: The same over requests answered in time; None if there are none.
        missed: Share of requests without an answer at the deadline, 0 to 1.
        refused: Share of requests that the server refused because no exit was expected in time.
        p50_ms: Median response time over all requests, from sending the request to receiving the
            answer; infinite for a refused request.
        p95_ms: 95th percentile of the response time.
        p99_ms: 99th percentile of the response time.
        exits: Share of requests that each exit answers, in time or late.
        mean_ms: Mean work of the server per request, in milliseconds.
        mean_flops: The same in FLOPs (a multiply-add is 2).
        utilisation: Share of time that the server is busy, from its first request to its last
            answer.
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


@dataclass(frozen=True)
class Simulation(Record):
    """The results of a simulation and its settings; `str` prints a table.

    Attributes:
        rows: Full network, smallest exit, then each policy without and with deadlines.
        measure: What the values measure.
        exits: Names of the exits.
        requests: Number of requests.
        deadline_ms: Deadline, from sending a request to receiving its answer.
        settings: Arrivals, transmission times and seed, as JSON values.
        seconds: Duration of the simulation.
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
        values = super().as_json()
        settings, seconds, rows = (values.pop(name) for name in ("settings", "seconds", "rows"))
        return {**values, **settings, "seconds": seconds, "rows": rows}

    def __str__(self) -> str:
        measure, rows = self.measure, self.rows
        in_time = ["" if r.value_in_time is None else measure.text(r.value_in_time) for r in rows]
        unit, (flops,) = scaled_flops([row.mean_flops for row in rows])
        table = Table.of(
            ("answers", [row.name for row in rows]),
            (measure.head, [measure.text(row.value) for row in rows]),
            ("in time", in_time),
            ("missed %", [f"{100 * row.missed:.2f}" for row in rows]),
            ("p50 ms", [_time_text(row.p50_ms) for row in rows]),
            ("p95 ms", [_time_text(row.p95_ms) for row in rows]),
            ("p99 ms", [_time_text(row.p99_ms) for row in rows]),
            *(
                (f"{name} %", [f"{100 * row.exits[exit]:.1f}" for row in rows])
                for exit, name in enumerate(self.exits)
            ),
            (unit, flops),
            ("work ms", [f"{row.mean_ms:.2f}" for row in rows]),
            ("busy %", [f"{100 * row.utilisation:.1f}" for row in rows]),
        )
        return f"{table}\n{self._foot()}"

    def _foot(self) -> str:
        unanswered = (
            "counts as wrong"
            if self.measure.higher_is_better
            else "counts as an answer with the median of the labels"
        )
        return (
            f"{self.requests} requests, deadline {self.deadline_ms:g} ms after sending; a request "
            f"that misses it {unanswered}. Percentiles of the response time are over all "
            "requests; - means never answered. An exit's share is of all requests; the rest, up to "
            f"100 %, was refused.{self._overloaded()}"
        )

    def _overloaded(self) -> str:
        # With deadlines, requests are refused, so the queue stays short however busy the server is.
        patient = [row for row in self.rows if not row.name.endswith(BY_DEADLINE)]
        names = ", ".join(row.name for row in patient if row.utilisation > _OVERLOADED)
        return f" Overloaded, with a queue that keeps growing: {names}." if names else ""


def _time_text(ms: float) -> str:
    return f"{ms:.1f}" if math.isfinite(ms) else "-"
