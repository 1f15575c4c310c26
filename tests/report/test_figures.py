import subprocess
import sys
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from offramp.evaluation import Comparison
from offramp.report import ReportInputs, plot_differences, plot_tradeoff, plot_training


def words(figure: Figure) -> list[str]:
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return legends + [text.get_text() for axes in figure.axes for text in axes.texts]


def lines(axes: Any) -> list[Any]:
    return list(axes.lines)


def line(figure: Figure, label: str) -> Any:
    return next(line for line in lines(figure.axes[0]) if line.get_label() == label)


def test_every_exit_is_plotted_at_its_flops_and_accuracy(comparison: Comparison) -> None:
    figure = plot_tradeoff(comparison)
    assert list(line(figure, "SL-ViT").get_xdata()) == [12.0, 32.0]
    assert list(line(figure, "SL-ViT").get_ydata()) == pytest.approx([65.0, 75.0])
    assert list(line(figure, "CNN").get_ydata()) == pytest.approx([55.0, 45.0])
    assert "final layer 90.0" in words(figure)


def test_rivals_are_distinguished_by_how_they_were_made(comparison: Comparison) -> None:
    figure = plot_tradeoff(comparison)
    labels = ["static rival: as is", "static rival: new <statistics>"]
    markers = [line(figure, label).get_marker() for label in labels]
    assert len(set(markers)) == 2
    assert words(figure).count("9 px") == 2


def test_an_impractical_exit_is_hollow_and_the_legend_says_so(comparison: Comparison) -> None:
    figure = plot_tradeoff(comparison)
    hollow = [
        line
        for line in lines(figure.axes[0])
        if line.get_markerfacecolor() == "#ffffff" and len(line.get_xdata()) == 1
    ]
    assert [list(line.get_xdata()) for line in hollow] == [[32.0]]
    assert hollow[0].get_ydata()[0] == pytest.approx(45.0)
    assert "hollow: impractical" in words(figure)


def test_series_differ_in_colour_and_in_marker(comparison: Comparison) -> None:
    figure = plot_tradeoff(comparison)
    one, other = line(figure, "SL-ViT"), line(figure, "CNN")
    assert one.get_color() != other.get_color()
    assert one.get_marker() != other.get_marker()


def test_the_cuts_are_named(comparison: Comparison) -> None:
    (top,) = plot_tradeoff(comparison).axes[0].child_axes
    assert [text.get_text() for text in top.get_xticklabels()] == ["a<1>", "b&2"]


def test_differences_stand_at_their_points_and_name_their_sign(comparison: Comparison) -> None:
    (axes,) = plot_differences(comparison).axes
    dots = [line.get_xdata()[0] for line in lines(axes) if line.get_marker() == "o"]
    assert dots == pytest.approx([10.0, 30.0])
    assert axes.get_xlabel() == "SL-ViT minus CNN, points (better to the right)"


def test_training_has_a_panel_per_cut_and_marks_the_kept_epoch(inputs: ReportInputs) -> None:
    figure = plot_training(inputs.curves, inputs.comparison)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a<1>", "b&2"]
    dots = [line for line in lines(figure.axes[0]) if line.get_marker() == "o"]
    assert len(dots) == 4
    assert (dots[0].get_xdata()[0], dots[0].get_ydata()[0]) == (2, 0.6)


def test_drawing_leaves_matplotlib_s_settings_alone(comparison: Comparison) -> None:
    with mpl.rc_context({"font.size": 33.0}):
        before = dict(mpl.rcParams)
        figure = plot_tradeoff(comparison)
        assert dict(mpl.rcParams) == before
    label: Any = figure.axes[0].xaxis.label
    assert label.get_fontsize() < 12


def test_no_window_system_is_touched() -> None:
    code = (
        "import sys, offramp.report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from offramp.report.style import house_style\n"
        "with house_style(): pass\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
