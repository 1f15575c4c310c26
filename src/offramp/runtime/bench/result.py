"""What a bench found, as numbers and as tables."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.record import Record
from offramp.runtime.bench.cold import ColdStart
from offramp.runtime.bench.verdict import Verdict
from offramp.table import Table, bytes_text, counted, scaled_flops
from offramp.task import Measure


@dataclass(frozen=True)
class Took(Record):
    """Milliseconds of one call.

    Attributes:
        median_ms: Over the rounds.
        p95_ms: Their 95th percentile.
    """

    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, took_ms: NDArray[np.float64]) -> Self:
        """From the milliseconds of all rounds."""
        median, high = np.percentile(took_ms, (50, 95))
        return cls(float(median), float(high))


@dataclass(frozen=True)
class ExitRow(Record):
    """One exit.

    Attributes:
        name: Its name; `final` for the whole network, stage by stage.
        value: Accuracy (0 to 1) or mean absolute error, if it is known.
        flops: FLOPs on its own path (a multiply-add is 2).
        flops_share: The same as a share of the whole network's.
        took: Time to its answer on its own path.
        time_share: Its median as a share of the whole network's, stage by stage.
        policy_ms: Median time to its answer with the branches on the way; None if the policy
            disables the exit.
        share: Share of the samples that it answers.
        remark: Whether it is worth it here, or why not.
    """

    name: str
    value: float | None
    flops: int
    flops_share: float
    took: Took
    time_share: float
    policy_ms: float | None
    share: float
    remark: str


@dataclass(frozen=True)
class StaticRow(Record):
    """A smaller static model: the whole network on smaller pictures.

    Attributes:
        name: Such as `80 px`.
        value: Accuracy (0 to 1) or mean absolute error.
        flops: FLOPs (a multiply-add is 2).
        estimated_ms: Time of the whole network, times its share of the FLOPs; not measured.
        note: How it was made.
    """

    name: str
    value: float
    flops: int
    estimated_ms: float
    note: str


@dataclass(frozen=True)
class Throughput(Record):
    """Samples per second at one size of batch.

    Attributes:
        batch: Samples in a batch.
        whole: By the whole network, stage by stage.
        exits: With the policy and its mix of exits.
        one_graph: By the whole network as one graph, if it was measured.
    """

    batch: int
    whole: float
    exits: float
    one_graph: float | None


@dataclass(frozen=True)
class Bench(Record):
    """What a bundle's exits cost and save on this machine.

    Attributes:
        bundle: The bundle.
        engine: Name and version of the engine.
        precision: What it computes in.
        threads: CPU threads.
        processor: Name of the processor.
        cores: Cores of the machine.
        repeats: Rounds, in each of which everything is timed once.
        measure: What the values of exits and static models measure.
        policy: The policy in words.
        mix_from: Where the shares of the exits come from.
        exits: One row per exit, the whole network last.
        one_graph: Time of the whole network as a single graph; None if it was not measured.
        staged_ratio: Median over the rounds of the time stage by stage divided by that as one
            graph.
        static: Smaller static models.
        throughput: By size of batch.
        cold: First answers in new processes.
        verdict: Whether exits pay here.
        notes: What was not measured, and why.
    """

    bundle: str
    engine: str
    precision: str
    threads: int
    processor: str
    cores: int
    repeats: int
    measure: Measure
    policy: str
    mix_from: str
    exits: tuple[ExitRow, ...]
    one_graph: Took | None
    staged_ratio: float | None
    static: tuple[StaticRow, ...]
    throughput: tuple[Throughput, ...]
    cold: tuple[ColdStart, ...]
    verdict: Verdict
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {**super().as_json(), "measure": self.measure.name}

    def __str__(self) -> str:
        parts = [
            str(self._exit_table()),
            self._foot(),
            str(self._throughput_table()),
            *([str(self._cold_table())] if self.cold else []),
            *self.notes,
            f"{self.verdict.sentence[0].upper()}{self.verdict.sentence[1:]}.",
        ]
        return "\n\n".join(parts)

    def _exit_table(self) -> Table:
        counts = [*(row.flops for row in self.exits), *(row.flops for row in self.static)]
        unit, (flops,) = scaled_flops(counts)
        head = ["model", self.measure.head, unit, "FLOPs %", "ms", "p95", "time %", "with passed"]
        head += ["answers %", "worth it here"]
        whole = self.exits[-1].took.median_ms
        rows = [self._exit_cells(row) for row in self.exits]
        rows += [self._static_cells(row, whole) for row in self.static]
        for row, text in zip(rows, flops, strict=True):
            row.insert(2, text)
        if not any(row[1] for row in rows):
            for row in (head, *rows):
                del row[1]
        return Table(head, rows)

    def _exit_cells(self, row: ExitRow) -> list[str]:
        return [
            row.name,
            "" if row.value is None else self.measure.text(row.value),
            f"{100 * row.flops_share:.1f}",
            f"{row.took.median_ms:.2f}",
            f"{row.took.p95_ms:.2f}",
            f"{100 * row.time_share:.1f}",
            "" if row.policy_ms is None else f"{row.policy_ms:.2f}",
            f"{100 * row.share:.1f}",
            row.remark,
        ]

    def _static_cells(self, row: StaticRow, whole_ms: float) -> list[str]:
        share = f"{100 * row.estimated_ms / whole_ms:.1f}"
        value, ms = self.measure.text(row.value), f"~{row.estimated_ms:.2f}"
        return [row.name, value, share, ms, "", f"~{share}", "", "", "static, no exits"]

    def _throughput_table(self) -> Table:
        rows = self.throughput
        one = [f"{row.one_graph:.1f}" for row in rows if row.one_graph is not None]
        return Table.of(
            ("batch", [str(row.batch) for row in rows]),
            ("whole network", [f"{row.whole:.1f}" for row in rows]),
            ("as one graph", one),
            ("with exits", [f"{row.exits:.1f}" for row in rows]),
            (
                "exits / whole",
                [f"{row.exits / max(row.whole, row.one_graph or 0):.2f}" for row in rows],
            ),
            title="Samples per second; the last column compares with the faster form of the whole",
            left=0,
        )

    def _cold_table(self) -> Table:
        rows = self.cold
        return Table.of(
            ("first answer of", [row.exit for row in rows]),
            ("graphs are loaded", ["when needed" if row.lazy else "at once" for row in rows]),
            ("open ms", [f"{row.open_ms:.0f}" for row in rows]),
            ("answer ms", [f"{row.first_ms:.1f}" for row in rows]),
            (
                "memory",
                ["" if r.growth_bytes is None else bytes_text(r.growth_bytes) for r in rows],
            ),
            title="Cold start, one new process each: time and growth of memory after the imports",
            left=2,
        )

    def _foot(self) -> str:
        parts = [
            f"{self.engine} in {self.precision} on {counted(self.threads, 'thread')} of "
            f"{self.processor} ({counted(self.cores, 'core')}).",
            f"ms is the median time of Runtime.run for one prepared sample over {self.repeats} "
            "rounds, in which everything was timed in turn; time % is its share of the whole "
            "network's, and with passed includes the branches that the policy runs on the way.",
            f"Policy: {self.policy}.",
            f"Shares of the answers: {self.mix_from}.",
        ]
        if self.one_graph is not None and self.staged_ratio is not None:
            parts.append(
                f"The whole network as one graph takes {self.one_graph.median_ms:.2f} ms (p95 "
                f"{self.one_graph.p95_ms:.2f}); stage by stage it takes {self.staged_ratio:.3f} "
                "times that."
            )
        if self.static:
            parts.append("Times with ~ are estimated from FLOPs, not measured.")
        return "\n".join(parts)
