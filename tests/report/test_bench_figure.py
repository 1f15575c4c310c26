"""The figure of a bench."""

from dataclasses import replace

import numpy as np
import pytest

from offramp.report.bench_figure import plot_bench
from offramp.report.style import png_bytes
from offramp.runtime.bench.result import Bench, ExitRow, StaticRow, Took
from offramp.runtime.bench.verdict import judged
from offramp.task import measure_of


@pytest.fixture
def bench() -> Bench:
    exits = tuple(
        ExitRow(name, value, flops, flops / 9e6, Took(ms, ms), ms / 9, ms, 1 / 3, remark)
        for name, value, flops, ms, remark in (
            ("one", 0.5, 2_000_000, 3.0, "yes"),
            ("two", 0.6, 5_000_000, 6.0, "no: a later exit is not slower"),
            ("final", 0.7, 9_000_000, 9.0, ""),
        )
    )
    return Bench(
        bundle="b",
        engine="onnxruntime",
        precision="fp32",
        threads=1,
        processor="p",
        cores=2,
        repeats=3,
        measure=measure_of("classification"),
        policy="none",
        mix_from="assumed",
        exits=exits,
        one_graph=Took(8.0, 8.5),
        staged_ratio=1.1,
        static=(StaticRow("5 px", 0.55, 4_000_000, 4.0, "not retrained"),),
        throughput=(),
        cold=(),
        verdict=judged(["one", "final"], [3, 9], [3, 10], [0.5, 0.5]),
        notes=(),
    )


def texts(bench: Bench) -> tuple[str, list[str], list[list[float]]]:
    [axes] = plot_bench(bench).axes
    lines = [np.asarray(line.get_ydata(), float).tolist() for line in axes.lines]
    return axes.get_ylabel(), [each.get_text() for each in axes.texts], lines


def test_exits_and_static_models_stand_at_their_times_and_accuracies(bench: Bench) -> None:
    label, names, lines = texts(bench)
    assert label == bench.measure.head
    assert names == ["one", "two", "final", "5 px"]
    assert lines[0] == pytest.approx([50, 60, 70])
    assert lines[1] == pytest.approx([60])  # the exit that is not worth it, hollow
    assert lines[-1] == pytest.approx([55])
    assert png_bytes(plot_bench(bench)).startswith(b"\x89PNG")


def test_where_accuracy_is_not_known_the_figure_shows_flops(bench: Bench) -> None:
    exits = tuple(replace(row, value=None) for row in bench.exits)
    label, _, lines = texts(replace(bench, exits=exits, static=()))
    assert label.startswith("FLOPs")
    assert lines[0] == pytest.approx([200 / 9, 500 / 9, 100])
