"""The paper's tables with handmade results, which are checked number by number."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from accounting import Account, summary
from plans import (
    Places,
    Trained,
    backbone_plan,
    branch_plan,
    trained_backbones,
    write_plan,
)
from results import Measured, Results, every_result
from scenarios import KINDS, Kind, Scenario, scenarios
from tables import backbone_table, branch_table, made_tables

RESULTS = Results(
    trained=Trained("cifar10", "ResNet152"),
    stand_in=False,
    final=95.0,
    branches={
        ("1", "cnn"): Measured(66.0, 0.5, 5),
        ("1", "slvit"): Measured(71.25, None, 1),
        ("2", "slvit"): Measured(80.0, 0.25, 4),
    },
    differences={"1": (5.25, 4.75, 5.875)},
    keep=("last", "best"),
)
CROWDS = Results(Trained("disco", "AudioCSRNet"), False, 14.03, {}, {}, ("best", "last"))
"""Of a run whose branches all failed."""


def counted(scenario: Scenario, kind: Kind) -> Account:
    """Numbers that are not the paper's."""
    places = {"cnn": (1_250_000, 4_000_000_000), "slvit": (990_000, 2_500_000_000)}
    params, total = places[kind]
    return Account(scenario, kind, params, 10_000_000_000, total)


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def mixed(ours: Sequence[str], paper: str) -> list[str]:
    """Ours and the paper's in turn."""
    return [each for pair in zip(ours, paper.split(), strict=True) for each in pair]


def test_a_table_of_branches_gives_the_papers_columns_ours_and_their_difference() -> None:
    title, head, _, *lines = str(branch_table(4, [RESULTS, CROWDS], counted)).splitlines()
    assert title == "Table 4: accuracy in percent; keep: best"
    assert cells(head) == [
        *("backbone", "place", "branch", "paper", "ours", "difference", "repeats"),
        *("Branch Params", "paper", "Total FLOPS", "paper", "Acceleration", "paper"),
        *("SL-ViT minus CNN: paper", "ours, 95 % interval"),
    ]
    one, two = ("ResNet152", "1"), ("ResNet152", "2")
    ours, vits = ("1.25M", "4.00B"), ("0.99M", "2.50B", "4.00")
    assert list(map(cells, lines)) == [
        [*one, "cnn", "66.74 ± 0.57", "66.00 ± 0.50", "-0.74", "5", *mixed(ours, "0.78M 1.66B")],
        [
            *(*one, "slvit", "70.79 ± 0.72", "71.25", "+0.46", "1"),
            *mixed(vits, "0.59M 1.64B 13.77"),
            *("+4.05", "+5.25, +4.75 to +5.88"),
        ],
        [*two, "cnn", "79.31 ± 0.81", "failed", *mixed(ours, "0.83M 5.33B")],
        [
            *(*two, "slvit", "81.18 ± 0.52", "80.00 ± 0.25", "-1.18", "4"),
            *(*mixed(vits, "0.79M 5.26B 4.29"), "+1.87"),
        ],
    ]


def test_what_stand_ins_measured_is_not_shown_while_costs_are() -> None:
    shown = str(branch_table(4, [replace(RESULTS, stand_in=True)], counted))
    assert shown.count("stand-in") == 5
    assert "66.00" not in shown
    assert "+5.25" not in shown
    assert shown.count("1.25M") == 2
    assert "stand-in" in str(backbone_table([replace(RESULTS, stand_in=True)]))


def test_table_1_is_backbones_by_data_sets() -> None:
    title, head, _, *lines = str(backbone_table([RESULTS, CROWDS])).splitlines()
    assert title == (
        "Table 1: accuracy in percent, or mean absolute error in people; keep: best and last"
    )
    assert cells(head) == [
        *("backbone", "CIFAR-10 Acc.", "CIFAR-100 Acc.", "SC Acc.", "GTZAN Acc.", "DISCO MAE"),
    ]
    found = list(map(cells, lines))
    assert found[:4] == [
        ["ResNet152", "paper", "95.36", "82.25", "95.85", "91.29", "-"],
        ["ResNet152", "ours", "95.00", "-"],
        ["ResNet152", "difference", "-0.36", "-"],
        ["DenseNet201", "paper", "96.48", "82.53", "96.36", "92.09", "-"],
    ]
    assert found[9:] == [
        ["AudioCSRNet", "paper", "-", "-", "-", "-", "13.63"],
        ["AudioCSRNet", "ours", "-", "-", "-", "-", "14.03"],
        ["AudioCSRNet", "difference", "-", "-", "-", "-", "+0.40"],
    ]


def test_gtzan_by_track_is_in_a_table_of_its_own_that_says_so() -> None:
    segment = replace(RESULTS, trained=Trained("gtzan", "ResNet152"), final=91.0)
    track = replace(
        segment,
        trained=Trained("gtzan", "ResNet152", "track"),
        final=61.0,
        branches={("1", "cnn"): Measured(44.0, 0.5, 5)},
    )
    first, second = map(str, made_tables(7, [RESULTS, segment, track], counted))
    assert first.startswith("Table 7 (split by segment, as in the paper): accuracy in percent")
    assert second.startswith("Table 7 (split by track, while the paper splits by segment): ")
    assert "66.00" in first
    assert "44.00" not in first
    assert "44.00" in second
    assert "66.00" not in second
    [only] = made_tables(7, [track], counted)
    assert str(only) == second
    lines = str(backbone_table([segment, track])).splitlines()
    assert lines[1].endswith("DISCO MAE  GTZAN Acc. by track")
    assert cells(lines[3])[-3:] == ["91.29", "-", "-"]
    assert cells(lines[4])[-3:] == ["91.00", "-", "61.00"]
    assert cells(lines[5])[-3:] == ["-0.29", "-", "-"]


def test_results_name_the_split_and_the_weights_that_were_kept(tmp_path: Path) -> None:
    one = Trained("gtzan", "InceptionV3", "track")
    places = Places(tmp_path / "data", tmp_path / "backbones")
    run = tmp_path / "branches" / str(one)
    write_plan(
        places.backbones / str(one) / "plan.yaml", "", "", backbone_plan(one, places, "last")
    )
    write_plan(run / "plan.yaml", "", "", branch_plan(one, places, "best"))
    row = {"cut": "paper:2", "kind": "slvit", "value": 0.75, "std": 0.0125, "seeds": [0, 1]}
    pair = {"cut": "paper:2", "difference": 0.0625, "interval": [0.03125, 0.09375]}
    comparison = {"final": {"value": 0.875}, "rows": [row], "differences": [pair]}
    metrics = {"comparison": comparison, "warnings": []}
    (run / "metrics.json").write_text(json.dumps(metrics))
    [found] = every_result(tmp_path, trained_backbones("track"))
    assert found == Results(
        one,
        False,
        87.5,
        {("2", "slvit"): Measured(75.0, 1.25, 2)},
        {"2": (6.25, 3.125, 9.375)},
        ("last", "best"),
    )
    values = found.as_json()
    assert values["split_by"] == "track"
    assert values["keep"] == {"backbone": "last", "branches": "best"}
    assert "split_by" not in RESULTS.as_json()


@pytest.mark.parametrize(("params", "explains"), [(838_730, True), (834_538, False)])
def test_a_miss_is_explained_only_where_it_occurs(params: int, explains: bool) -> None:
    scenario = Scenario("gtzan", "ResNet152", "2")
    one = Account(scenario, "slvit", params, 22_590_000_000, 5_259_515_650)
    shown = summary([one])
    assert ("gtzan ResNet152 2, slvit: table 3 says 24 heads" in shown) == explains
    assert f"sizes          {int(not explains)} of 1" in shown


def test_a_miss_without_an_explanation_is_only_counted() -> None:
    rows = [counted(scenario, kind) for scenario in scenarios() for kind in KINDS]
    assert summary(rows[:2]).splitlines()[0] == "sizes          0 of 2"
    assert len(summary(rows[:2]).splitlines()) == 3
