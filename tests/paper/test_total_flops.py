"""The paper's total FLOPs and accelerations: 27 scenarios, tables 4 to 8 and 11.

Total means the backbone up to the branch and the branch.
"""

import csv
from functools import cache
from pathlib import Path

import pytest
import torch
from accounting import Account, account, accounts, stage_flops
from scenarios import PRINTED, Scenario

from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import count_flops
from offramp.spec import FeatureShape

pytestmark = pytest.mark.slow

COMPUTED = list(csv.DictReader(Path(__file__).with_name("computed.csv").read_text().splitlines()))


@cache
def by_scenario() -> dict[tuple[str, str, str], Account]:
    found = accounts("paper")
    return {
        (each.scenario.data, f"{each.scenario.backbone} {each.scenario.place}", each.kind): each
        for each in found
    }


def names(row: dict[str, str]) -> str:
    return f"{row['dataset']}-{row['location']}"


def test_all_totals_and_accelerations_are_the_printed_ones() -> None:
    found = list(by_scenario().values())
    assert sum(each.total_agrees for each in found) == 54
    assert sum(each.size_agrees for each in found) == 53
    assert [each.acceleration_agrees for each in found].count(True) == 27


@pytest.mark.parametrize("row", COMPUTED, ids=names)
def test_totals_agree_with_the_formulas_to_the_fourth_decimal(row: dict[str, str]) -> None:
    cnn, slvit = (by_scenario()[row["dataset"], row["location"], k] for k in ("cnn", "slvit"))
    assert abs(cnn.total / 1e9 - float(row["cnn_total_gflop"])) < 1.001e-4
    assert abs(slvit.total / 1e9 - float(row["slvit_total_gflop"])) < 1.001e-4
    assert abs(slvit.whole / slvit.total - float(row["acceleration_unrounded"])) < 1e-3


HONEST = {
    # whole; then per place the prefix, with CNN, with SL-ViT, acceleration: CIFAR-10, 2 x MAC
    "ResNet152": (22.562, (1.6233, 1.6497, 1.6396, 13.76), (5.2199, 5.3211, 5.2554, 4.29)),
    "DenseNet201": (8.580, (2.5224, 2.5489, 2.5387, 3.38), (4.1538, 4.2051, 4.1765, 2.05)),
    "InceptionV3": (5.673, (2.1200, 2.1650, 2.1357, 2.66), (2.4752, 2.5202, 2.4909, 2.28)),
}


@pytest.mark.parametrize("name", HONEST)
def test_the_2mac_count_counts_attention_and_nothing_but_products(name: str) -> None:
    whole, *places = HONEST[name]
    _, stages = stage_flops(name, 10, "2mac")
    for index, (prefix, cnn, slvit, acceleration) in enumerate(places):
        scenario = Scenario("cifar10", name, str(index + 1))
        plain, vit = (account(scenario, kind, "2mac") for kind in ("cnn", "slvit"))
        assert f"{vit.whole / 1e9:.3f}" == f"{whole:.3f}"
        assert f"{sum(stages[: index + 1]) / 1e9:.4f}" == f"{prefix:.4f}"
        assert f"{plain.total / 1e9:.4f}" == f"{cnn:.4f}"
        assert f"{vit.total / 1e9:.4f}" == f"{slvit:.4f}"
        assert f"{vit.whole / vit.total:.2f}" == f"{acceleration:.2f}"


HONEST_COUNTS = {
    # with CNN, with SL-ViT, acceleration, in 2 x MAC
    "V1": (329.551, 328.539, 1.488),
    "AV1": (331.144, 330.134, 1.481),
    "AV2": (374.631, 373.619, 1.308),
}


@pytest.mark.parametrize("place", HONEST_COUNTS)
def test_the_2mac_count_of_the_audio_visual_network(place: str) -> None:
    scenario = Scenario("disco", "AudioCSRNet", place)
    plain, vit = (account(scenario, kind, "2mac") for kind in ("cnn", "slvit"))
    cnn, slvit, acceleration = HONEST_COUNTS[place]
    assert f"{vit.whole / 1e9:.2f}" == "488.78"
    assert f"{plain.total / 1e9:.3f}" == f"{cnn:.3f}"
    assert f"{vit.total / 1e9:.3f}" == f"{slvit:.3f}"
    assert f"{vit.whole / vit.total:.3f}" == f"{acceleration:.3f}"


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        *((SLViT(heads=h), f"SL-ViT ({h} heads)") for h in (2, 4, 8, 12, 16)),
        (SLViT(heads=1), "SL-ViT (1 head)"),
        (SLViT(layers=2), "SL-ViT (2 layers)"),
        (ConvBranch(), "CNN (3x3 kernel)"),
        (ConvBranch(kernel=11, filters=12, padding=4), "CNN (11x11 kernel)"),
        (ConvBranch(kernel=15, filters=10, padding=6), "CNN (15x15 kernel)"),
        (ConvBranch(dilation=2, padding=1), "CNN (dilation 2)"),
        (ConvBranch(dilation=3, padding=2), "CNN (dilation 3)"),
        (ConvBranch(layers=2, padding=(1, 0)), "CNN (2 layers)"),
    ],
)
def test_the_variants_of_table_11_cost_what_is_printed(spec: BranchSpec, row: str) -> None:
    rows = PRINTED["table11_ablation_cifar10_resnet152_branch1"]
    shape = FeatureShape(128, 28, 28)
    branch = count_flops(spec.build(shape, 10), (torch.zeros(1, 128, 28, 28),), "paper")
    total = (stage_flops("ResNet152", 10, "paper")[1][0] + branch) / 1e9
    assert f"{total:.2f}" == f"{next(r['flops_b'] for r in rows if r['row'] == row):.2f}"
