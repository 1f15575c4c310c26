from pathlib import Path

import pytest
import torch
from torch import nn

from offramp.backbones.paper.audiocsrnet import AudioCSRNet, FusionBlock, upsampled
from offramp.backbones.staged import Cut, cut
from offramp.backbones.zoo import build, describe
from offramp.data import Disco
from offramp.errors import BundleError, PlanError
from offramp.spec import FeatureShape

NARROW = {"height": 32, "width": 48, "front": ((2,), (3,), (4,), (8,)), "fusion": (8, 4)}
SOUND = ((2,), (3,), (4,), (8,))


def narrow() -> AudioCSRNet:
    torch.manual_seed(0)
    net = AudioCSRNet(sound=SOUND, **NARROW).eval()  # type: ignore[arg-type]
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


def test_the_network_has_the_papers_size_and_places() -> None:
    with torch.device("meta"):
        net = AudioCSRNet().eval()
        sample = torch.zeros(1, 3, 576, 1024), torch.zeros(1, 1, 96, 64)
        assert net.density(*sample).shape == (1, 1, 72, 128)
    assert net.count.in_features == 9216
    assert f"{sum(w.numel() for w in net.parameters()) / 1e6:.2f}" == "22.81"  # 22.80 without ones


def test_its_inputs_are_stated_as_the_data_set_makes_them() -> None:
    stated = describe("paper:audiocsrnet").inputs
    assert stated == Disco(root=Path("anywhere")).inputs
    assert [each.shape for each in stated] == [(3, 576, 1024), (1, 96, 64)]


def test_its_cuts_read_what_is_seen_and_what_is_heard() -> None:
    sample = torch.randn(2, 3, 32, 48), torch.randn(2, 1, 96, 64)
    net = narrow()
    staged = cut(net, list(describe("paper:audiocsrnet").cuts.values()), sample)
    seen = FeatureShape(8, 4, 6)
    assert staged.tap_shapes == {"V1": (seen,), "AV1": (seen, (8,)), "AV2": (seen,)}
    assert torch.equal(staged(*sample), net(*sample))


@pytest.mark.parametrize("seen", ["vgg.2", "vgg.7", "fuse.1"])
@pytest.mark.parametrize("heard", ["vggish.features.1", "vggish.features.8", "vggish"])
def test_any_place_that_sees_combines_with_any_that_hears(seen: str, heard: str) -> None:
    """Paper, section 6."""
    net, sample = narrow(), (torch.randn(2, 3, 32, 48), torch.randn(2, 1, 96, 64))
    staged = cut(net, [Cut("both", taps=(seen, heard))], sample)
    assert torch.equal(staged(*sample), net(*sample))
    [(map_needs, side_needs)] = staged.inputs.of_taps.values()
    assert side_needs == {1}
    assert map_needs == ({0, 1} if seen.startswith("fuse") else {0})
    side = staged.tap_shapes["both"][1]
    assert isinstance(side, FeatureShape) == (heard != "vggish")


def test_at_the_start_the_count_is_the_sum_of_the_density() -> None:
    sample = torch.randn(3, 3, 32, 48), torch.randn(3, 1, 96, 64)
    net = narrow()
    total = net.density(*sample).sum(dim=(1, 2, 3))
    assert torch.allclose(net(*sample)[:, 0], total, rtol=1e-5)


def test_a_fusion_block_scales_and_shifts_by_what_is_heard() -> None:
    block = FusionBlock(3, 4, 5).eval()
    seen, heard = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    expected = block.gamma(heard)[..., None, None] * block.norm(block.conv(seen))
    expected = (expected + block.beta(heard)[..., None, None]).clamp(min=0)
    assert torch.equal(block(seen, heard), expected)
    assert not torch.allclose(block(seen, heard), block(seen, -heard))


def test_upsampling_keeps_the_sum_and_spreads_each_cell_evenly() -> None:
    density = torch.rand(2, 1, 3, 4)
    large = upsampled(density)
    assert large.shape == (2, 1, 24, 32)
    assert torch.allclose(large.sum(dim=(1, 2, 3)), density.sum(dim=(1, 2, 3)))
    assert torch.allclose(large[0, 0, :8, 8:16], density[0, 0, 0, 1] / 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of both front ends with the names and shapes of the published ones."""
    torch.manual_seed(1)
    net = AudioCSRNet(64, 64)
    vgg = {f"features.{k}": torch.randn_like(v) for k, v in net.vgg.state_dict().items()}
    torch.save({**vgg, "classifier.6.bias": torch.zeros(1000)}, tmp_path / "vgg16-397923af.pth")
    sound = {k: torch.randn_like(v) for k, v in net.vggish.state_dict().items()}
    torch.save({**sound, "embeddings.0.bias": torch.zeros(9)}, tmp_path / "vggish-10086976.pth")
    return tmp_path


def test_front_ends_come_from_a_folder_and_the_rest_stays_new(folder: Path) -> None:
    options = {"height": 64, "width": 64}
    net = build("paper:audiocsrnet", weights=folder, options=options).state_dict()
    new = build("paper:audiocsrnet", options=options).state_dict()
    vgg = torch.load(folder / "vgg16-397923af.pth", weights_only=True)
    sound = torch.load(folder / "vggish-10086976.pth", weights_only=True)
    assert torch.equal(net["vgg.21.weight"], vgg["features.21.weight"])
    assert torch.equal(net["vggish.features.13.bias"], sound["features.13.bias"])
    assert torch.equal(net["fuse.0.conv.weight"], new["fuse.0.conv.weight"])


def test_a_missing_front_end_is_named_with_the_file_to_get(folder: Path) -> None:
    (folder / "vggish-10086976.pth").unlink()
    with pytest.raises(
        BundleError, match=r"0 files that match vggish\*\.pth, but needs exactly one: a torch port"
    ):
        build("paper:audiocsrnet", weights=folder, options={"height": 64, "width": 64})


def test_weights_of_another_front_end_are_refused(folder: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, folder / "vgg16-397923af.pth")
    with pytest.raises(BundleError, match=r"lacks weights for vgg\.0\.weight .*vgg16-397923af"):
        build("paper:audiocsrnet", weights=folder, options={"height": 64, "width": 64})


def test_it_gives_one_number_only() -> None:
    with pytest.raises(PlanError, match="gives one number, a count"):
        build("paper:audiocsrnet", num_outputs=10)
