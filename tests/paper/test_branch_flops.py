"""What a branch alone costs, in both conventions, and how shares of a residual network add up."""

import pytest
import torch
import torchvision

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch, SLViT
from offramp.branches.attention import Attention
from offramp.compute import count_flops
from offramp.spec import FeatureShape

DISCO = (FeatureShape(512, 72, 128), SLViT(patch=8), ConvBranch(padding=1, pool=4), 1)


@pytest.mark.parametrize(
    ("features", "slvit", "cnn", "outputs", "mflops"),
    [
        (FeatureShape(128, 28, 28), SLViT(), ConvBranch(), 10, "26.44 7.76 16.27"),
        (FeatureShape(512, 28, 28), SLViT(), ConvBranch(), 10, "101.20 27.03 35.54"),
        (
            FeatureShape(512, 28, 28),
            SLViT(heads=24),
            ConvBranch(),
            10,
            "101.20 27.03 44.04",
        ),
        (FeatureShape(256, 28, 28), SLViT(), ConvBranch(), 10, "51.36 14.19 22.69"),
        (FeatureShape(288, 25, 25), SLViT(patch=5), ConvBranch(), 10, "45.00 12.27 15.69"),
        (
            FeatureShape(288, 25, 25),
            SLViT(patch=5, dim=36, heads=8),
            ConvBranch(),
            100,
            "45.05 13.86 16.66",
        ),
        (*DISCO, "1363.8 305.7 351.7"),
    ],
)
def test_a_branch_costs_what_its_architecture_says(
    features: FeatureShape,
    slvit: SLViT,
    cnn: ConvBranch,
    outputs: int,
    mflops: str,
) -> None:
    tap = torch.empty(1, features.channels, features.height, features.width, device="meta")
    branch = slvit.build(features, outputs)
    tokens = torch.empty(1, branch.position.shape[0], slvit.dim)
    attention = sum(
        count_flops(part, (tokens,)) for part in branch.modules() if isinstance(part, Attention)
    )
    whole = count_flops(branch, (tap,))
    found = (count_flops(cnn.build(features, outputs), (tap,)), whole - attention, whole)
    for flops, expected in zip(found, mflops.split(), strict=True):
        digits = len(expected.partition(".")[2])
        assert f"{flops / 1e6:.{digits}f}" == expected
    assert whole < found[0]  # the paper under-counts SL-ViT, but not beyond the CNN


def test_a_resnet18_has_spent_547_and_773_thousandths_after_its_middle_layers() -> None:
    """Its blocks share modules such as the ReLU, each called several times."""
    staged = cut(torchvision.models.resnet18(), ["layer2", "layer3"], torch.zeros(1, 3, 224, 224))
    first, second, last = staged.stage_flops()
    whole = first + second + last
    assert f"{first / whole:.3f} {(first + second) / whole:.3f}" == "0.547 0.773"
    assert whole == count_flops(torchvision.models.resnet18(), (torch.zeros(1, 3, 224, 224),))
