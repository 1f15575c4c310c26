from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from offramp.evaluation.quality import Quality, quality
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score
from offramp.report import ReportInputs, plot_mix, plot_oracle, plot_reliability
from offramp.report.page import quality_section


@pytest.fixture
def found(inputs: ReportInputs) -> Quality:
    assert inputs.quality is not None
    return inputs.quality


def line(figure: Figure, label: str, panel: int = 0) -> Any:
    return next(each for each in figure.axes[panel].lines if each.get_label() == label)


def test_reliability_has_a_panel_per_exit_with_its_bins_before_and_after(found: Quality) -> None:
    figure = plot_reliability(found)
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == 3
    for panel, exit in enumerate(found.exits):
        for label, bins in (
            ("as trained", exit.before),
            ("after temperature scaling", exit.after),
        ):
            assert bins is not None
            drawn = line(figure, label, panel)
            np.testing.assert_allclose(drawn.get_xdata(), 100 * bins.confidence)
            np.testing.assert_allclose(drawn.get_ydata(), 100 * bins.accuracy)
        assert shown[panel].get_title(loc="left") == f"{exit.name}, T = {exit.temperature:.2f}"


def test_the_oracle_continues_level_to_the_backbone_s_cost(found: Quality) -> None:
    drawn = line(plot_oracle(found), "oracle: the best exit for each sample")
    assert drawn.get_xdata()[-1] == 100
    assert drawn.get_ydata()[-1] == drawn.get_ydata()[-2] == 100 * found.oracle.value[-1]


def test_policies_and_exits_stand_at_their_cost(found: Quality) -> None:
    figure = plot_oracle(found)
    (policy,) = found.policies
    drawn = line(figure, "policy: at <half>")
    assert drawn.get_xdata()[0] == pytest.approx(100 * policy.cost_share)
    assert drawn.get_ydata()[0] == pytest.approx(100 * policy.overall.value)
    exits = line(figure, "an exit that answers every sample")
    assert list(exits.get_xdata()) == pytest.approx([12, 32, 100])


def test_the_mix_names_the_parts_with_the_largest_drop_on_top(found: Quality) -> None:
    (policy,) = found.policies
    (axes,) = plot_mix(found, policy).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["all", *(f"class {row.name}" for row in policy.parts)]
    bars = np.array([patch.get_width() for patch in axes.patches]).reshape(3, -1)  # type: ignore[attr-defined]
    np.testing.assert_allclose(bars.sum(axis=0), 100)
    np.testing.assert_allclose(bars[:, 0], 100 * np.array(policy.overall.mix))


def test_the_section_holds_every_table(found: Quality) -> None:
    section = quality_section(found)
    tables = found.tables()
    assert section.count("<table") == len(tables) == 5
    assert "no promise" in section
    assert "fitted on 30 other samples" in section


def test_a_regression_shows_no_reliability() -> None:
    outputs = ExitOutputs(
        outputs=np.arange(12, dtype=np.float32).reshape(2, 6, 1),
        labels=np.arange(6.0),
        task="regression",
        stage_flops=np.array([1, 2]),
        branch_flops=np.array([1, 0]),
    )
    policy = ExitPolicy(score=find_score("agreement"), thresholds=(0.0,), names=outputs.names)  # type: ignore[arg-type]
    section = quality_section(quality(outputs, [policy]))
    assert 'id="reliability"' not in section
    assert 'id="oracle"' in section
    assert "rise of MAE" in section


def test_many_classes_are_cut_to_the_worst() -> None:
    labels = np.arange(60) % 30
    logits = np.eye(30, dtype=np.float32)[labels]
    outputs = ExitOutputs(
        outputs=np.stack([logits[::-1], logits]),
        labels=labels,
        stage_flops=np.array([1, 2]),
        branch_flops=np.array([1, 0]),
    )
    policy = ExitPolicy(score=find_score("margin"), thresholds=(0.0,), names=("exit 0", "final"))
    found = quality(outputs, [policy])
    (axes,) = plot_mix(found, found.policies[0]).axes
    assert len(axes.get_yticklabels()) == 21
    section = quality_section(found)
    assert "The 20 largest of 30." in section
    assert "10 of 30" in section
