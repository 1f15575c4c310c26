"""Branches that read a map and side inputs, trained at the paper's places and at another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.paper.audiocsrnet import AudioCSRNet
from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.zoo import describe
from offramp.branches import ConvBranch, SLViT
from offramp.errors import DataError
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

    def __getitem__(self, row: int) -> tuple[tuple[Tensor, Tensor | None], float]:
        drawn = torch.Generator().manual_seed(row)
        count = float(row % 6)
        picture = torch.randn(3, 32, 48, generator=drawn) + count
        return (picture, torch.randn(1, 96, 64, generator=drawn) * (1 + count)), count


@pytest.mark.parametrize("how", ["cached", "fused"])
@pytest.mark.slow
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


class PartlyHeard(Scenes):
    """The same, where every third sound is absent."""

    def __getitem__(self, row: int) -> tuple[tuple[Tensor, Tensor | None], float]:
        (picture, sound), count = super().__getitem__(row)
        return (picture, None if row % 3 == 0 else sound), count


@pytest.mark.parametrize("how", ["cached", "fused"])
def test_a_branch_learns_from_samples_without_a_sound(backbone: StagedBackbone, how: str) -> None:
    vit = SLViT(patch=2, dim=4, heads=2, hidden=8, standardise=True)
    hearing = vit.model_copy(update={"absent": "token"})
    settings: dict[str, Any] = {"task": "regression", "epochs": 6, "lr": 1e-2, "how": how}

    def trained(scenes: Scenes, cuts: dict[str, list[SLViT]]) -> MultiExit:
        return fit_branches(backbone, cuts, scenes, scenes, seeds=[0], **settings)

    partly = trained(PartlyHeard(), {"V1": [vit], "own": [hearing]})
    assert partly.chosen["own"].validation_loss < 1.5
    whole = trained(Scenes(), {"V1": [vit]})  # which never hears anything
    assert partly.chosen["V1"].history == whole.chosen["V1"].history


@pytest.mark.parametrize(
    ("cut", "spec", "text"),
    [
        ("AV1", ConvBranch(padding=1), r"at 'AV1' refuses.*Give it absent='token'"),
        (
            "AV2",
            ConvBranch(padding=1),
            r"at 'AV2' refuses to answer without it. Leave these samples",
        ),
    ],
)
def test_samples_without_a_sound_are_refused_where_it_is_needed(
    backbone: StagedBackbone, cut: str, spec: ConvBranch, text: str
) -> None:
    start = r"8 of 24 training samples, such as sample 0, lack input 1 \('sound'\), and conv.*"
    with pytest.raises(DataError, match=start + text):
        fit_branches(backbone, {cut: [spec]}, PartlyHeard(), Scenes(), seeds=[0], task="regression")


def test_training_that_drops_sounds_resumes_to_the_same_bits(
    backbone: StagedBackbone, tmp_path: Path
) -> None:
    spec = ConvBranch(padding=1, filters=4, hidden=8, absent="token", drop_side=0.4)

    class StopError(Exception):
        """Ends a call like a kill."""

    def fit(out: Path, stop_at: str = "never") -> MultiExit:
        def progress(what: str, *_: int) -> None:
            if stop_at in what:
                raise StopError

        return fit_branches(
            backbone,
            {"own": [spec]},
            Scenes(),
            Scenes(),
            seeds=[3],
            out=out,
            task="regression",
            epochs=4,
            batch_size=6,
            progress=progress,
            tensorboard=False,
        )

    with pytest.raises(StopError):
        fit(tmp_path / "stopped", "epoch 3/4")
    resumed, straight = fit(tmp_path / "stopped"), fit(tmp_path / "whole")
    assert resumed.trials[0].history == straight.trials[0].history
    for ours, theirs in zip(
        resumed.branches.parameters(), straight.branches.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
