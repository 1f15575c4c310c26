"""The figures on the quality of exits: reliability, the oracle, which exit answers which class."""

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from offramp.evaluation.exit_quality import ExitQuality, Reliability
from offramp.evaluation.policy_quality import PolicyQuality, drop_head
from offramp.evaluation.quality import Quality
from offramp.report.style import INK, MUTED, PAGE, SERIES, canvas, say, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
SHOWN = 20
"""Classes and groups that the mix shows at most, those with the largest drops."""


def plot_reliability(quality: Quality) -> "Figure":
    """Share of right answers against confidence, one panel per exit, bins of equal mass."""
    rows = ceil(len(quality.exits) / _COLUMNS)
    with canvas(0.5 + 2.1 * rows) as figure:
        panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).flat
        for axes in panels:
            axes.set_axis_off()
        for place, exit in enumerate(quality.exits):
            axes = figure.axes[place]
            axes.set_axis_on()
            _draw_reliability(axes, exit)
            if place % _COLUMNS == 0:
                axes.set_ylabel("accuracy, %")
            if place + _COLUMNS >= len(quality.exits):  # nothing below
                axes.set_xlabel("maximum softmax, %")
                axes.tick_params(labelbottom=True)
        handles, _ = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), fontsize=8)
    return figure


def plot_oracle(quality: Quality) -> "Figure":
    """Accuracy against mean cost: the oracle, the exits on their own path, and the policies."""
    scale, oracle = quality.measure.scale, quality.oracle
    with canvas(4.0) as figure:
        axes = figure.add_subplot()
        share, value = 100 * oracle.cost_share, scale * oracle.value
        x, y = np.append(share, max(100.0, share[-1])), np.append(value, value[-1])
        label = "oracle: the best exit for each sample"
        axes.plot(x, y, "--", color=MUTED, linewidth=1.4, label=label)
        _draw_exits(axes, quality)
        drawn = styles(policy.name for policy in quality.policies)
        for policy in quality.policies:
            colour, marker = drawn[policy.name]
            at = (100 * policy.cost_share, scale * policy.overall.value)
            label = f"policy: {policy.name}"
            axes.plot(*at, marker, color=colour, markersize=7, linestyle="none", label=label)
        axes.set_xlim(left=0)
        axes.margins(y=0.12)
        what = "FLOPs" if quality.unit == "flops" else "milliseconds"
        axes.set_xlabel(f"mean cost, % of the backbone's {what}")
        axes.set_ylabel(quality.measure.head)
        figure.legend(loc="outside lower left", fontsize=8)
    return figure


def plot_mix(quality: Quality, policy: PolicyQuality) -> "Figure":
    """Which exit answers, overall and per class and group; the largest drop is on top."""
    rows = (policy.overall, *policy.parts[:SHOWN])
    shares = 100 * np.array([row.mix for row in rows])
    with canvas(1.2 + 0.24 * len(rows)) as figure:
        axes = figure.add_subplot()
        starts = np.cumsum(shares, axis=1) - shares
        for exit, (name, colour) in enumerate(_exit_colours(quality).items()):
            axes.barh(range(len(rows)), shares[:, exit], 0.72, starts[:, exit], color=colour,
                      edgecolor=PAGE, linewidth=0.8, label=name)  # fmt: skip
        for place, row in enumerate(rows):
            text = quality.measure.difference_text(row.drop)
            axes.text(101.5, place, text, va="center", fontsize=8)
        axes.text(101.5, -0.85, drop_head(quality.measure), ha="left", fontsize=8)
        axes.set_yticks(range(len(rows)), [str(row) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("samples answered by each exit, %")
        figure.legend(loc="outside lower left", ncols=3, fontsize=8)
    return figure


def _draw_reliability(axes: "Axes", exit: ExitQuality) -> None:
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, label="perfect")
    title = exit.name
    if exit.before is not None:
        _draw_bins(axes, exit.before, SERIES[1], "^", "as trained")
    if exit.after is not None:
        _draw_bins(axes, exit.after, SERIES[0], "o", "after temperature scaling")
        title = f"{title}, T = {exit.temperature:.2f}"
    axes.set_title(title)
    axes.set_xticks(range(0, 101, 25))
    axes.set_yticks(range(0, 101, 25))


def _draw_bins(axes: "Axes", found: Reliability, colour: str, marker: str, label: str) -> None:
    x, y = 100 * found.confidence, 100 * found.accuracy
    axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.1, label=label)


def _draw_exits(axes: "Axes", quality: Quality) -> None:
    scale, whole = quality.measure.scale, quality.exits[-1].cost
    points = [(100 * exit.cost / whole, scale * exit.value) for exit in quality.exits]
    label = "an exit that answers every sample"
    axes.plot(*zip(*points, strict=True), "s", color=INK, markersize=6, label=label)
    for exit, point in zip(quality.exits, points, strict=True):
        say(axes, exit.name, point, (0, -12), ha="center")


def _exit_colours(quality: Quality) -> dict[str, str]:
    *early, last = (exit.name for exit in quality.exits)
    colours = {name: SERIES[place % len(SERIES)] for place, name in enumerate(early)}
    return {**colours, last: MUTED}
