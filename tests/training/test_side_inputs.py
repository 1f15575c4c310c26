"""Branches that read a map and side inputs, trained at the paper's places and at another."""

from pathlib import Path

import pytest
import torch
from torch import nn

from offramp.backbones.paper.audiocsrnet import AudioCSRNet
from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.zoo import describe
from offramp.branches import ConvBranch, SLViT
from offramp.multiexit import MultiExit
from offramp.training import fit_branches


@pytest.fixture(scope="module")
def backbone() -> StagedBackbone:
    """A narrow AudioCSRNet with the paper's cuts and one more."""
    torch.manual_seed(0)
    narrow = ((2,), (3,), (4,), (8,))
    net = AudioCSRNet(32, 48, front=narrow, sound=narrow, fusion=(8, 4)).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    own = Cut("own", taps=("vgg.7", "vggish.features.3"))  # half-way in both front ends
    cuts = [*describe("paper:audiocsrnet").cuts.values(), own]
    return cut(net, cuts, (torch.randn(2, 3, 32, 48), torch.randn(2, 1, 96, 64)))


class Scenes:
    """Pictures whose brightness, and sounds whose loudness, is the count."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, row: int) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
        drawn = torch.Generator().manual_seed(row)
        count = float(row % 6)
        picture = torch.randn(3, 32, 48, generator=drawn) + count
        return (picture, torch.randn(1, 96, 64, generator=drawn) * (1 + count)), count


@pytest.mark.parametrize("how", ["cached", "fused"])
def test_audio_visual_branches_train_save_and_load(
    backbone: StagedBackbone, how: str, tmp_path: Path
) -> None:
    vit = SLViT(patch=2, dim=4, heads=2, hidden=8, standardise=True)
    conv = ConvBranch(padding=1, filters=4, hidden=8, standardise=True)
    model = fit_branches(
        backbone,
        {"V1": [vit], "AV1": [vit, conv], "own": [vit, conv], "AV2": [conv]},
        Scenes(),
        Scenes(),
        seeds=[0],
        task="regression",
        epochs=12,
        batch_size=6,
        lr=1e-2,
        how=how,  # type: ignore[arg-type]
    )
    assert len(model.trials) == 6
    assert min(trial.validation_loss for trial in model.trials) < 1.0  # 1.5 for a constant
    model.save(tmp_path)
    again = MultiExit.load(tmp_path, backbone=backbone.original)
    first, other = model.collect(Scenes()), again.collect(Scenes())
    assert (first.outputs == other.outputs).all()
