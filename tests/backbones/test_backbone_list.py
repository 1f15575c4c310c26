"""Every backbone that the project promises, cut at several places, bit for bit."""

import gc
import hashlib
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.folding import TOLERANCE, quickened
from offramp.backbones.stage import Stage
from offramp.backbones.staged import cut
from offramp.backbones.zoo import build

BACKBONES = [
    ("torchvision:resnet18", 96, ["layer1.0.conv2", "layer1", "layer3.0.relu_0"]),
    ("torchvision:resnet152", 96, ["layer1.2.relu_2", "layer2.0.conv1", "layer3.20"]),
    (
        "torchvision:densenet201",
        96,
        [
            "features.transition1",
            "features.transition2.conv",
            "features.denseblock4.denselayer7.conv1",
        ],
    ),
    ("torchvision:inception_v3", 96, ["Mixed_5c", "Mixed_5d.branch3x3dbl_2", "Mixed_6b"]),
    ("torchvision:vgg16", 96, ["features.4", "features.16", "classifier.1"]),
    ("torchvision:mobilenet_v2", 96, ["features.3.conv.1.0", "features.7", "features.14"]),
    ("torchvision:mobilenet_v3_large", 96, ["features.4.block.2", "features.7", "features.12"]),
    ("torchvision:efficientnet_b0", 96, ["features.2.1", "features.4.1.block.2", "features.6"]),
    ("torchvision:shufflenet_v2_x1_0", 96, ["stage2.1", "stage3.1.getitem_1", "stage4.0"]),
    ("torchvision:regnet_y_400mf", 96, ["trunk_output.block2", "trunk_output.block3.block3-1.f.a"]),
    ("torchvision:convnext_tiny", 96, ["features.1.1", "features.3.2.block.3", "features.5.4"]),
    ("torchvision:googlenet", 96, ["inception3a.branch2.0", "inception4b", "inception5a"]),
    ("torchvision:mnasnet1_0", 96, ["layers.8", "layers.9.1.layers.3", "layers.12"]),
    ("torchvision:squeezenet1_1", 96, ["features.4", "features.6.expand1x1", "features.11"]),
    ("timm:tf_efficientnet_lite0", 96, ["blocks.1.1", "blocks.2.1.conv_dw", "blocks.4.1"]),
    ("timm:resnet50d", 96, ["layer1.1.bn2", "layer2", "layer3.3"]),
    ("timm:res2net50_26w_4s", 96, ["layer1.0.convs.1", "layer2", "layer3.2.bns.0"]),
    ("timm:repvgg_a0", 96, ["stages.1.0.conv_1x1.bn", "stages.2.3", "stages.2.9"]),
    ("timm:ghostnet_100", 96, ["blocks.2.0", "blocks.4.0.ghost1.primary_conv", "blocks.6.3"]),
    ("timm:hrnet_w18", 96, ["layer1.2.bn1", "stage2.0.branches.1.1", "stage3.1.fuse_act_2"]),
    ("timm:dla34", 96, ["level2", "level3.tree1.tree2.bn1", "level4.tree1"]),
    ("timm:mobilenetv4_conv_small", 96, ["blocks.1.0.conv", "blocks.2.2", "blocks.3.1.dw_mid"]),
    ("paper:resnet152", 96, ["layer2.0.conv1", "layer2.7.conv3", "layer3.20"]),
    ("torchvision:vit_b_16", 224, ["conv_proj", "encoder.layers.encoder_layer_3"]),
    ("torchvision:swin_t", 96, ["features.1.0", "features.3.1.attn", "features.5.2"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "places"), BACKBONES, ids=[b[0] for b in BACKBONES])
def test_stages_equal_the_backbone_bit_for_bit_and_leave_what_they_gave_alone(
    name: str, size: int, places: list[str]
) -> None:
    model = unlike_fresh(build(name))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    backbone = cut(model, places, images[:1])
    assert backbone.cuts == tuple(places)
    given: list[tuple[Tensor, str]] = [(images, digest(images))]
    live = (images,)
    with torch.no_grad():
        for stage in backbone.stages:
            live, taps = stage(live)
            given += [(tensor, digest(tensor)) for tensor in (*live, *taps)]
        (output,) = live
        expected = model(images.clone())
    assert expected.isfinite().all()
    assert expected.std(0).max() > 0  # two images, two answers
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert [digest(tensor) for tensor, _ in given] == [before for _, before in given]
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "places"), BACKBONES, ids=[b[0] for b in BACKBONES])
def test_quicker_copies_of_the_stages_agree(name: str, size: int, places: list[str]) -> None:
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(3))
    backbone = cut(unlike_fresh(build(name)), places, images)
    stages = cast(list[Stage], list(backbone.stages))
    quick = quickened(stages, backbone.input_shapes, torch.device("cpu"))
    norms, left = (
        sum(isinstance(m, nn.BatchNorm2d) for s in each for m in s.modules())
        for each in (stages, quick)
    )
    assert left < norms or norms == 0
    live = quick_live = (images,)
    with torch.inference_mode():
        for stage, copy in zip(stages, quick, strict=True):
            (live, taps), (quick_live, quick_taps) = stage(live), copy(quick_live)
            for a, b in zip((*live, *taps), (*quick_live, *quick_taps), strict=True):
                assert (a - b).abs().max() <= TOLERANCE * a.abs().max()


def unlike_fresh(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and weights of its own, so that no two cancel out."""
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.0, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
        elif isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, generator=generator)  # vit_b_16's last layer is zero
    return model


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()
