import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from offramp.backbones.zoo import describe
from offramp.branches import ConvBranch, SLViT
from offramp.cli import app
from offramp.compute import count_params
from offramp.errors import CutError, PlanError
from offramp.spec import FeatureShape
from offramp.survey import Survey, survey_backbone, survey_model


class Steps(nn.Module):
    """Four equal convolutions, so that each is a known share of the FLOPs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.a(x))
        skip = x
        x = self.b(x)
        x = self.c(x) + skip
        result: Tensor = self.d(x).mean((2, 3))
        return result


def test_rows_hold_name_aliases_shape_liveness_flops_patches_and_branches() -> None:
    found = survey_model(Steps(), torch.zeros(5, 3, 12, 8))
    assert found.total_flops == 4 * 2 * 3 * 3 * 9 * 12 * 8
    rows = {row["name"]: row for row in found.as_json()["cuts"]}
    assert list(rows) == ["a", "b", "c", "add", "d"]
    sizes = {
        spec.label(): count_params(spec.build(FeatureShape(3, 12, 8), 3))
        for spec in (SLViT(patch=4), ConvBranch())
    }
    assert rows["a"] == {
        "name": "a",
        "aliases": ["drop"],
        "kind": "module",
        "shape": [3, 12, 8],
        "axes": ["batch", "channels", "height", "width"],
        "live_tensors": 1,
        "live_bytes": 4 * 3 * 12 * 8,
        "flops_share": 0.25,
        "patches": [1, 2, 4],
        "branch_params": sizes,
    }
    assert rows["b"]["live_tensors"] == 2
    assert rows["b"]["live_bytes"] == 2 * 4 * 3 * 12 * 8
    assert rows["add"]["kind"] == "node"
    assert rows["add"]["live_tensors"] == 1


def test_resnet18_has_the_issue_s_shares() -> None:
    found = survey_backbone("torchvision:resnet18", None, ["3x224x224"])
    shares = {cut.place.name: cut.place.flops_share for cut in found.cuts}
    assert shares["layer2"] == pytest.approx(0.547, abs=5e-4)
    assert shares["layer3"] == pytest.approx(0.773, abs=5e-4)


def test_suggestions_are_nearest_to_their_shares_with_few_live_tensors_on_ties() -> None:
    found = survey_model(Steps(), torch.zeros(1, 3, 12, 8))
    assert [cut.place.name for cut in found.suggest([0.26, 0.5, 0.7]).cuts] == ["a", "b", "add"]
    assert [cut.place.name for cut in found.suggest([0.24, 0.26]).cuts] == ["a", "b"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.skip = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Identity())
        self.dense = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu()) + self.skip(x)
        result: Tensor = y + self.dense(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


class Blocks(nn.Module):
    """Maps in both orders of axes, inner activations, and block ends near every share."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(8)))
        self.top = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.top(self.blocks(x).mean((2, 3)))
        return result


def test_suggestions_prefer_ends_of_blocks() -> None:
    found = survey_model(Blocks(), torch.zeros(1, 4, 8, 12))
    for shares in ([0.25, 0.5, 0.75], [0.27], [0.47, 0.6]):
        assert all(
            cut.place.name.count(".") == 1 and cut.place.ends_block
            for cut in found.suggest(shares).cuts
        )


def test_an_end_of_a_block_wins_over_a_nearer_place_inside_one() -> None:
    found = survey_backbone("torchvision:resnet18", None, ["3x96x96"], "3")
    assert [cut.place.name for cut in found.cuts] == ["layer1.0", "layer2", "layer3"]


def test_maps_with_channels_last_have_neither_patches_nor_branches() -> None:
    found = survey_model(Blocks(), torch.zeros(1, 4, 8, 12))
    rows = {cut.place.name: cut for cut in found.cuts}
    dense = rows["blocks.2.dense"]
    assert dense.place.axes == ("batch", "height", "width", "channels")
    assert (dense.patches, dense.branch_params) == ((), {})
    assert rows["blocks.2"].patches == (1, 2, 4)
    assert "not a map: batch x height x width x channels" in str(found)


def test_suggestions_need_a_map_that_a_patch_divides() -> None:
    found = survey_model(
        nn.Sequential(Steps(), nn.Linear(3, 300), nn.Linear(300, 7)), torch.zeros(1, 3, 1, 9)
    )
    assert all(cut.patches == () for cut in found.cuts)
    with pytest.raises(PlanError, match="has only 0 suitable places for 1 shares"):
        found.suggest([0.5])


@pytest.mark.parametrize("shares", [[], [0.0], [1.0], [0.5, 1.2]])
def test_shares_outside_zero_to_one_are_refused(shares: list[float]) -> None:
    with pytest.raises(PlanError, match="between 0 and 1"):
        survey_model(Steps(), torch.zeros(1, 3, 12, 8)).suggest(shares)


FILE = """
import torch
from torch import nn

def make():
    return nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(4)))
"""


def test_a_python_file_stands_in_for_a_name_and_suggest_takes_a_count_or_shares(
    tmp_path: Path,
) -> None:
    (tmp_path / "net.py").write_text(FILE)
    place = f"{tmp_path / 'net.py'}:make"
    found = survey_backbone(None, place, ["3x6x5"])
    assert found.backbone == place
    assert [cut.place.name for cut in found.cuts] == ["0", "1", "2"]
    chosen = survey_backbone(None, place, ["3x6x5"], "3")
    assert [cut.place.name for cut in chosen.cuts] == ["0", "1", "2"]
    chosen = survey_backbone(None, place, ["3x6x5"], "0.5,.3")
    assert [cut.place.name for cut in chosen.cuts] == ["0", "1"]
    assert json.loads(json.dumps(chosen.as_json()))["input"] == "3x6x5"


LEAF = """
from torch import nn

class Odd(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x

def make():
    return nn.Sequential(nn.Conv2d(3, 3, 1), Odd(), nn.Conv2d(3, 3, 1))
"""


def test_leaves_are_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LEAF)
    place = f"{tmp_path / 'net.py'}:make"
    with pytest.raises(CutError, match="Odd"):
        survey_backbone(None, place, ["3x6x5"])
    found = survey_backbone(None, place, ["3x6x5"], leaves=["Odd"])
    assert [cut.place.name for cut in found.cuts] == ["0", "1"]
    result = CliRunner().invoke(
        app, ["cuts", "--backbone", place, "--input", "3x6x5", "--leaf", "Odd", "--json"]
    )
    assert [row["name"] for row in json.loads(result.stdout)["cuts"]] == ["0", "1"]


@pytest.mark.slow
def test_named_cuts_and_what_the_weights_expect_are_listed() -> None:
    found = survey_backbone("paper:resnet152", None, ["3x32x32"])
    assert found.as_json()["named_cuts"]["paper:1"] == ["layer2.0.conv1"]
    assert "named cuts: paper:1 (layer2.0.conv1), paper:2 (layer2.7.conv3)" in str(found)
    found = survey_backbone("torchvision:squeezenet1_1", None, ["3x64x64"])
    (expected,) = found.as_json()["weights_expect"]
    assert (expected["height"], expected["mean"][0]) == (224, 0.485)
    assert "its weights expect inputs of 3x224x224" in str(found)


def test_what_the_weights_expect_of_a_sound_is_listed_as_well() -> None:
    expected = describe("paper:audiocsrnet").inputs
    found = Survey("pair", ((3, 576, 1024), (1, 96, 64)), 1, (), weights_expect=expected)
    assert "its weights expect inputs of 3x576x1024, 1x96x64" in str(found)
    picture, sound = found.as_json()["weights_expect"]
    assert (picture["kind"], picture["mean"]) == ("image", [0.4108, 0.3706, 0.3597])
    assert (sound["kind"], sound["rate"]) == ("spectrogram", 16_000)
    json.dumps(found.as_json())


def test_the_table_names_every_place_and_branch() -> None:
    text = str(survey_model(Steps(), torch.zeros(1, 3, 12, 8), name="steps"))
    assert text.startswith("steps, input 3x12x8: 0.000 GFLOP")
    for word in ("add", "25.0%", "slvit-p4-d32-h12", "1 2 4"):
        assert word in text


@pytest.mark.parametrize(
    ("name", "file", "size", "suggest", "expected"),
    [
        (None, None, "3x8x8", None, "name or --backbone"),
        ("torchvision:resnet18", "x.py:f", "3x8x8", None, "not both"),
        ("torchvision:resnet18", None, "3,8,8", None, "CxHxW"),
        ("torchvision:resnet18", None, "3x8x8", "few", "neither a count"),
        ("torchvision:resnet18", None, "3x8x8", "0", "between 0 and 1"),
        ("torchvision:resnet81", None, "3x8x8", None, "torchvision:resnet18"),
    ],
)
def test_wrong_arguments_are_refused(
    name: str | None, file: str | None, size: str, suggest: str | None, expected: str
) -> None:
    with pytest.raises(PlanError, match=expected):
        survey_backbone(name, file, [size], suggest)


def test_wrong_channels_are_refused_with_the_sample_s_shape() -> None:
    with pytest.raises(CutError, match=r"sample \(1x4x64x64\): .*`--input 1x96x40` is one"):
        survey_backbone("torchvision:resnet18", None, ["4x64x64"])
