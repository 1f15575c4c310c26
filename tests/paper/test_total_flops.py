"""The paper's total FLOPs and accelerations: 24 classification scenarios, tables 4 to 7 and 11.

Total means the backbone up to the branch and the branch; ResNet152 is Keras' own form.
"""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp.backbones import zoo
from offramp.backbones.paper.top import paper_top
from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import count_flops
from offramp.cost import Convention, own_path
from offramp.spec import FeatureShape

pytestmark = pytest.mark.slow

PRINTED: dict[str, Any] = json.loads(Path(__file__).with_name("tables.json").read_text())
COMPUTED = [
    row
    for row in csv.DictReader(Path(__file__).with_name("computed.csv").read_text().splitlines())
    if row["dataset"] != "disco"
]
TABLES = {
    "cifar10": ("table4_cifar10", 10),
    "cifar100": ("table5_cifar100", 100),
    "sc": ("table6_speech_commands", 12),
    "gtzan": ("table7_gtzan", 10),
}
PLACES = {
    "ResNet152": ["layer2.0.conv1", "layer2.7.conv3"],  # the 12th and the 36th of all convolutions
    "DenseNet201": ["features.transition1.pool", "features.transition2.conv"],
    "InceptionV3": ["Mixed_5c", "Mixed_5d"],
}


@cache
def staged(name: str) -> StagedBackbone:
    backbone = zoo.build(f"paper:{name.lower()}", num_outputs=10)
    return cut(backbone, PLACES[name], torch.zeros(1, 3, 224, 224))


@cache
def ten_classes(name: str, convention: Convention) -> tuple[int, ...]:
    return staged(name).stage_flops(convention)


def stage_flops(name: str, classes: int, convention: Convention) -> tuple[int, ...]:
    *early, last = ten_classes(name, convention)
    features = torch.zeros(1, 1920 if name == "DenseNet201" else 2048)
    ten, wanted = (
        count_flops(paper_top(features.shape[1], k), (features,), convention) for k in (10, classes)
    )
    return (*early, last - ten + wanted)


def specs(dataset: str, location: str) -> dict[str, BranchSpec]:
    """Table 3."""
    spec = SLViT()
    if location.startswith("InceptionV3"):
        spec = SLViT(patch=5, dim=36, heads=8) if dataset == "cifar100" else SLViT(patch=5)
    if location == "ResNet152 2" and dataset in ("sc", "gtzan"):
        spec = SLViT(heads=24)
    return {"cnn": ConvBranch(), "slvit": spec}


def totals(row: dict[str, str], convention: Convention) -> dict[str, float]:
    """GFLOPs of the backbone as a whole and of each kind of branch on its own path."""
    name, place = row["location"].split()
    classes, index = TABLES[row["dataset"]][1], int(place) - 1
    stages = stage_flops(name, classes, convention)
    (shape,) = staged(name).tap_shapes[PLACES[name][index]]
    assert isinstance(shape, FeatureShape)
    tap = torch.zeros(1, shape.channels, shape.height, shape.width)
    found = {"whole": sum(stages) / 1e9}
    for kind, spec in specs(row["dataset"], row["location"]).items():
        branches = [0] * len(stages)
        branches[index] = count_flops(spec.build(shape, classes), (tap,), convention)
        found[kind] = float(own_path(stages, branches)[index]) / 1e9
    return found


def printed(row: dict[str, str]) -> dict[str, Any]:
    name, place = row["location"].split()
    rows = PRINTED[TABLES[row["dataset"]][0]]
    found: dict[str, Any] = next(r for r in rows if (r["backbone"], r["branch"]) == (name, place))
    return found


def names(row: dict[str, str]) -> str:
    return f"{row['dataset']}-{row['location']}"


def test_there_are_24_classification_scenarios() -> None:
    assert len(COMPUTED) == 24


@pytest.mark.parametrize("row", COMPUTED, ids=names)
def test_total_flops_and_acceleration_are_the_printed_ones(row: dict[str, str]) -> None:
    found, paper = totals(row, "paper"), printed(row)
    for kind in ("cnn", "slvit"):
        assert f"{found[kind]:.4f}" == row[f"{kind}_total_gflop"]
        assert f"{found[kind]:.2f}" == f"{paper[kind]['flops_b']:.2f}"
    whole, early = round(found["whole"], 2), round(found["slvit"], 2)  # the paper divides these
    assert f"{whole / early:.2f}" == f"{paper['acceleration_slvit']:.2f}"
    assert f"{found['whole'] / found['slvit']:.3f}" == row["acceleration_unrounded"]


HONEST = {
    # whole; then per place the prefix, with CNN, with SL-ViT, acceleration: CIFAR-10, 2 x MAC
    "ResNet152": (22.562, (1.6233, 1.6497, 1.6396, 13.76), (5.2199, 5.3211, 5.2554, 4.29)),
    "DenseNet201": (8.580, (2.5224, 2.5489, 2.5387, 3.38), (4.1538, 4.2051, 4.1765, 2.05)),
    "InceptionV3": (5.673, (2.1200, 2.1650, 2.1357, 2.66), (2.4752, 2.5202, 2.4909, 2.28)),
}


@pytest.mark.parametrize("name", HONEST)
def test_the_2mac_count_counts_attention_and_nothing_but_products(name: str) -> None:
    whole, *places = HONEST[name]
    stages = stage_flops(name, 10, "2mac")
    for index, (prefix, cnn, slvit, acceleration) in enumerate(places):
        row = {"dataset": "cifar10", "location": f"{name} {index + 1}"}
        found = totals(row, "2mac")
        assert f"{found['whole']:.3f}" == f"{whole:.3f}"
        assert f"{sum(stages[: index + 1]) / 1e9:.4f}" == f"{prefix:.4f}"
        assert f"{found['cnn']:.4f}" == f"{cnn:.4f}"
        assert f"{found['slvit']:.4f}" == f"{slvit:.4f}"
        assert f"{found['whole'] / found['slvit']:.2f}" == f"{acceleration:.2f}"


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
    total = (stage_flops("ResNet152", 10, "paper")[0] + branch) / 1e9
    assert f"{total:.2f}" == f"{next(r['flops_b'] for r in rows if r['row'] == row):.2f}"
