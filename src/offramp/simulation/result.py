"""Simulation: what a server with a deadline did, one row for each way to answer."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp.record import Record
from offramp.table import Table, scaled_flops
from offramp.task import Measure

BY_DEADLINE = ", by the deadline"  # follows a policy's name
_OVERLOADED = 0.995  # of the time busy; a queue that empties now and then leaves more of it


@dataclass(frozen=True)
class SimulationRow(Record):
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


@dataclass(frozen=True)
class Simulation(Record):
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
            else "counts as the median of the labels"
        )
        return (
            f"{self.requests} requests, deadline {self.deadline_ms:g} ms after sending; one that "
            f"misses it {unanswered}. Times are over all requests; - means no answer. Exits are "
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


def _time_text(ms: float) -> str:
    return f"{ms:.1f}" if math.isfinite(ms) else "-"
