"""The sizes of the paper's 54 branches: tables 4 to 8, with table 3's settings."""

import csv
from pathlib import Path

import pytest
from scenarios import KINDS, PRINTED, Kind, Scenario, explained, scenarios

from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.compute import count_params
from offramp.spec import FeatureShape, TapShape

COMPUTED = {
    (row["dataset"], row["location"]): row
    for row in csv.DictReader(Path(__file__).with_name("computed.csv").read_text().splitlines())
}
MAP = FeatureShape(128, 28, 28)
SEEN = FeatureShape(512, 72, 128)
TAPS: dict[str, tuple[TapShape, ...]] = {
    "ResNet152 1": (MAP,),
    "ResNet152 2": (FeatureShape(512, 28, 28),),
    "DenseNet201 1": (MAP,),
    "DenseNet201 2": (FeatureShape(256, 28, 28),),
    "InceptionV3 1": (FeatureShape(288, 25, 25),),
    "InceptionV3 2": (FeatureShape(288, 25, 25),),
    "AudioCSRNet V1": (SEEN,),
    "AudioCSRNet AV1": (SEEN, (512,)),
    "AudioCSRNet AV2": (SEEN,),
}
BRANCHES = [(scenario, kind) for scenario in scenarios() for kind in KINDS]


def location(scenario: Scenario) -> str:
    return f"{scenario.backbone} {scenario.place}"


def size(scenario: Scenario, kind: Kind) -> int:
    branch = scenario.branch(kind).build(TAPS[location(scenario)], scenario.outputs)
    return count_params(branch)


def test_there_are_54_branches_and_one_is_misprinted() -> None:
    assert len(BRANCHES) == len(set(BRANCHES)) == 54
    assert len(explained()) == 1


@pytest.mark.parametrize(("scenario", "kind"), BRANCHES, ids=str)
def test_a_branch_has_as_many_parameters_as_its_formula_gives(
    scenario: Scenario, kind: Kind
) -> None:
    row = COMPUTED[scenario.data, location(scenario)]
    assert size(scenario, kind) == int(row[f"{kind}_params"])


@pytest.mark.parametrize(
    ("scenario", "kind"), [each for each in BRANCHES if each not in explained()], ids=str
)
def test_53_branches_have_the_printed_size(scenario: Scenario, kind: Kind) -> None:
    millions = scenario.printed[kind]["params_m"]
    assert f"{size(scenario, kind) / 1e6:.2f}" == f"{millions:.2f}"


def test_the_54th_is_printed_one_head_too_small() -> None:
    """Table 3 says 24 heads for GTZAN at ResNet152 2; table 7's 0.83 M needs 23."""
    [(scenario, kind)] = explained()
    assert scenario.printed[kind]["params_m"] == 0.83
    tap = TAPS[location(scenario)]
    assert count_params(SLViT(heads=24).build(tap, 10)) == 838_730  # 0.84 M
    assert count_params(SLViT(heads=23).build(tap, 10)) == 834_538  # 0.83 M


@pytest.mark.parametrize(
    ("spec", "params", "row"),
    [
        (SLViT(heads=1), 545_706, "SL-ViT (1 head)"),
        (SLViT(heads=2), 549_898, "SL-ViT (2 heads)"),
        (SLViT(heads=4), 558_282, "SL-ViT (4 heads)"),
        (SLViT(heads=8), 575_050, "SL-ViT (8 heads)"),
        (SLViT(heads=12), 591_818, "SL-ViT (12 heads)"),
        (SLViT(heads=16), 608_586, "SL-ViT (16 heads)"),
        (SLViT(layers=2), 646_474, "SL-ViT (2 layers)"),
        (ConvBranch(), 779_290, "CNN (3x3 kernel)"),
        (ConvBranch(kernel=15, filters=10, padding=6), 789_268, "CNN (15x15 kernel)"),
        (ConvBranch(dilation=2, padding=1), 779_290, "CNN (dilation 2)"),
        (ConvBranch(dilation=3, padding=2), 779_290, "CNN (dilation 3)"),
        (ConvBranch(layers=2, padding=(1, 0)), 781_610, "CNN (2 layers)"),
        (ConvBranch(layers=2, padding=(0, 1)), 781_610, "CNN (2 layers)"),
    ],
)
def test_the_variants_of_table_11_have_their_sizes(spec: BranchSpec, params: int, row: str) -> None:
    rows = PRINTED["table11_ablation_cifar10_resnet152_branch1"]
    millions = next(r["params_m"] for r in rows if r["row"] == row)
    count = count_params(spec.build(MAP, 10))
    assert count == params
    assert f"{count / 1e6:.2f}" == f"{millions:.2f}"


def test_the_11x11_convolution_of_table_11_is_the_nearest_that_exists() -> None:
    """No filters, padding and pool give both its printed 0.78 M and 1.88 B."""
    spec = ConvBranch(kernel=11, filters=12, padding=4)
    assert count_params(spec.build(MAP, 10)) == 773_654  # 0.77 M


def test_a_second_layer_costs_one_whole_encoder() -> None:
    one, two = (count_params(SLViT(layers=n).build(MAP, 10)) for n in (1, 2))
    d, h = 32, 12
    assert two - one == h * (4 * d * d + 3 * d) + d + 4 * d + (4 * d * d + 3 * d)
