"""The figure of a bench: accuracy against measured time, with smaller static models."""

from typing import TYPE_CHECKING

from offramp.report.style import INK, MUTED, PAGE, SERIES, canvas, say
from offramp.runtime.bench import Bench

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_bench(bench: Bench) -> "Figure":
    """Accuracy of each exit against its time; where it is not known, its share of the FLOPs.

    Exits that are not worth it are hollow. Times of static models are estimated from FLOPs.
    """
    scored = all(row.value is not None for row in bench.exits)
    with canvas(3.8) as figure:
        axes = figure.add_subplot()
        _draw_exits(axes, bench, scored)
        _draw_static(axes, bench, scored)
        axes.set_xlim(left=0)
        axes.set_xlabel(
            f"ms per answer: {bench.engine}, {bench.precision}, {bench.threads} threads"
        )
        axes.set_ylabel(bench.measure.head if scored else "FLOPs, % of the whole network's")
        axes.margins(0.15)
        figure.legend(loc="outside lower left", fontsize=8)
    return figure


def _draw_exits(axes: "Axes", bench: Bench, scored: bool) -> None:
    xs = [row.took.median_ms for row in bench.exits]
    ys = [_height(bench, row.value, row.flops, scored) for row in bench.exits]
    axes.plot(xs, ys, "o-", color=SERIES[0], label="exits, measured on their own path")
    for row, x, y in zip(bench.exits, xs, ys, strict=True):
        if row.remark.startswith("no"):
            axes.plot(x, y, "o", color=SERIES[0], markerfacecolor=PAGE, zorder=3)
        say(axes, row.name, (x, y), (6, -10))
    if any(row.remark.startswith("no") for row in bench.exits):
        axes.plot([], [], "o", color=SERIES[0], markerfacecolor=PAGE, label="hollow: not worth it")
    if bench.one_graph is not None:
        label = "whole network as one graph"
        axes.plot(bench.one_graph.median_ms, ys[-1], "s", color=INK, label=label)


def _draw_static(axes: "Axes", bench: Bench, scored: bool) -> None:
    if not bench.static:
        return
    xs = [row.estimated_ms for row in bench.static]
    ys = [_height(bench, row.value, row.flops, scored) for row in bench.static]
    label = "smaller static models, time estimated from FLOPs"
    axes.plot(xs, ys, "x", color=MUTED, label=label)
    for row, x, y in zip(bench.static, xs, ys, strict=True):
        say(axes, row.name, (x, y), (6, 0), va="center")


def _height(bench: Bench, value: float | None, flops: int, scored: bool) -> float:
    if scored and value is not None:
        return bench.measure.scale * value
    return 100 * flops / bench.exits[-1].flops
