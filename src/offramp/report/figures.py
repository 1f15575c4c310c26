"""The figures: accuracy against FLOPs, paired differences, how the branches trained."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from offramp.evaluation import BranchRow, Comparison
from offramp.evaluation.rows import kind_name
from offramp.report.inputs import Curve
from offramp.report.style import INK, MUTED, PAGE, canvas, say, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RIVAL_MARKERS = ("x", "D", "*", "p")


def plot_tradeoff(comparison: Comparison) -> "Figure":
    """Accuracy against FLOPs on the own path, with 95 % intervals, final layer and rivals.

    Exits that are impractical are hollow.
    """
    with canvas(4.6) as figure:
        axes = figure.add_subplot()
        for name, (colour, marker) in _series_styles(comparison).items():
            rows = [row for row in comparison.rows if row.series == name]
            _draw_series(axes, comparison, rows, colour, marker)
        _draw_rivals(axes, comparison)
        _draw_final(axes, comparison)
        _name_cuts(axes, comparison)
        axes.set_xlim(0, 1.06 * _highest_flops(comparison) / 1e6)
        axes.set_xlabel(
            "MFLOPs per sample, up to and including the exit (a multiply-add counts as 2)"
        )
        axes.set_ylabel(comparison.measure.head)
        axes.margins(y=0.12)
        handles, _ = axes.get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside lower left", fontsize=8)
    return figure


def plot_differences(comparison: Comparison) -> "Figure":
    """Each paired difference with its 95 % interval, one line each, and where zero is."""
    items = comparison.differences
    with canvas(0.8 + 0.42 * len(items)) as figure:
        axes = figure.add_subplot()
        scale = comparison.measure.scale
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, item in enumerate(items):
            low, high = scale * item.interval.low, scale * item.interval.high
            axes.plot([low, high], [place, place], color=INK, linewidth=1.6)
            axes.plot(scale * item.difference, place, "o", color=INK, markersize=6)
        several = len({(item.kind, item.baseline) for item in items}) > 1
        names = [f"{i.cut}\n{i.branch} - {i.baseline}" if several else i.cut for i in items]
        axes.set_yticks(range(len(items)), names)
        axes.set_ylim(len(items) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(_difference_label(comparison, several=several))
    return figure


def plot_training(curves: Sequence[Curve], comparison: Comparison) -> "Figure":
    """Validation loss per epoch (solid) and training loss (dotted), one panel per cut."""
    of_series = _series_styles(comparison)
    colours = {(row.cut, row.branch): of_series[row.series][0] for row in comparison.rows}
    cuts = list(dict.fromkeys(curve.cut for curve in curves))
    with canvas(0.9 + 1.6 * len(cuts)) as figure:
        panels = figure.subplots(len(cuts), 1, sharex=True, squeeze=False)[:, 0]
        for axes, cut in zip(panels, cuts, strict=True):
            axes.set_title(cut)
            axes.set_ylabel("loss")
            for curve in curves:
                if curve.cut == cut:
                    _draw_curve(axes, curve, colours[cut, curve.branch])
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        handles = _training_legend(comparison)
        figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8)
    return figure


def _highest_flops(comparison: Comparison) -> int:
    rivals = [row.rival.flops for row in comparison.rivals]
    return max(comparison.final.flops, *(row.flops for row in comparison.rows), *rivals)


def _series_styles(comparison: Comparison) -> dict[str, tuple[str, str]]:
    return styles(row.series for row in comparison.rows)


def _series_label(row: BranchRow) -> str:
    return kind_name(row.series) if row.series == row.kind else row.series


def _draw_series(
    axes: "Axes", comparison: Comparison, rows: Sequence[BranchRow], colour: str, marker: str
) -> None:
    flops = [row.flops / 1e6 for row in rows]
    values = [comparison.measure.scale * row.value for row in rows]
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 6.5}
    axes.plot(flops, values, linewidth=1.4, label=_series_label(rows[0]), **look)
    for row, x, y in zip(rows, flops, values, strict=True):
        _draw_interval(axes, comparison, row, colour)
        if not row.practical:
            axes.plot(x, y, markerfacecolor=PAGE, zorder=3, **look)


def _draw_interval(axes: "Axes", comparison: Comparison, row: BranchRow, colour: str) -> None:
    scale, flops = comparison.measure.scale, row.flops / 1e6
    ends = [scale * row.interval.low, scale * row.interval.high]
    axes.plot([flops, flops], ends, color=colour, linewidth=1.2)


def _draw_final(axes: "Axes", comparison: Comparison) -> None:
    final, measure = comparison.final, comparison.measure
    point = (final.flops / 1e6, measure.scale * final.value)
    _draw_interval(axes, comparison, final, INK)
    face = INK if final.practical else PAGE
    axes.plot(*point, "s", color=INK, markersize=7, markerfacecolor=face)
    text = f"final layer {measure.text(final.value)}"
    say(axes, text, point, (-8, 0), ha="right", va="center")
    if not all(row.practical for row in (*comparison.rows, final)):
        axes.plot([], [], "o", color=INK, markerfacecolor=PAGE, label="hollow: impractical")


def _draw_rivals(axes: "Axes", comparison: Comparison) -> None:
    """Each way to make rivals with a marker of its own."""
    rivals = [row.rival for row in comparison.rivals]
    for place, note in enumerate(dict.fromkeys(rival.note for rival in rivals)):
        marker = _RIVAL_MARKERS[place % len(_RIVAL_MARKERS)]
        alike = [rival for rival in rivals if rival.note == note]
        flops = [rival.flops / 1e6 for rival in alike]
        values = [comparison.measure.scale * rival.value for rival in alike]
        look: dict[str, Any] = {"color": MUTED, "markersize": 5.5, "markeredgewidth": 1.8}
        axes.plot(
            flops, values, marker, label=fill(f"static rival: {note}", 74), zorder=1.9, **look
        )
        for rival, x, y in zip(alike, flops, values, strict=True):
            say(axes, f"{rival.resolution} px", (x, y), (6, 0), ha="left", va="center")


def _name_cuts(axes: "Axes", comparison: Comparison) -> None:
    """Name the cuts on top, each at its cheapest exit."""
    cheapest: dict[str, float] = {}
    for row in comparison.rows:
        cheapest[row.cut] = min(row.flops / 1e6, cheapest.get(row.cut, row.flops / 1e6))
    top = axes.secondary_xaxis("top")
    top.set_xticks(list(cheapest.values()), list(cheapest), rotation=35, ha="left", fontsize=8)
    top.tick_params(length=3, pad=1)
    top.spines["top"].set_visible(False)


def _difference_label(comparison: Comparison, *, several: bool) -> str:
    head = comparison.measure.difference_head
    item = comparison.differences[0]
    which = "branch - baseline"
    if not several:
        which = f"{kind_name(item.kind)} minus {kind_name(item.baseline_kind)}"
    better = "right" if comparison.measure.higher_is_better else "left"
    return f"{which}, {head} (better to the {better})"


def _draw_curve(axes: "Axes", curve: Curve, colour: str) -> None:
    epochs = range(1, len(curve.validation_loss) + 1)
    axes.plot(epochs, curve.train_loss, color=colour, linewidth=0.9, linestyle=":")
    axes.plot(epochs, curve.validation_loss, color=colour, linewidth=1.2)
    best = curve.validation_loss[curve.best_epoch - 1]
    axes.plot(curve.best_epoch, best, "o", color=colour, markersize=4.5)


def _training_legend(comparison: Comparison) -> list[object]:
    from matplotlib.lines import Line2D

    names = {row.series: _series_label(row) for row in comparison.rows}
    return [
        *(
            Line2D([], [], color=colour, label=f"{names[name]}, one line per seed")
            for name, (colour, _) in _series_styles(comparison).items()
        ),
        Line2D([], [], color=MUTED, marker="o", markersize=4.5, label="validation, kept epoch"),
        Line2D([], [], color=MUTED, linestyle=":", label="training"),
    ]
