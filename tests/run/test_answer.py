import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import ConvBranch
from offramp.data import Samples
from offramp.data.images import labelled_pictures
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.preprocess import ImagePreprocess
from offramp.run.answer import OneAnswer, answer_one_by_one

NAMES = ("dark", "light")


class Sure(nn.Module):
    """Answers class 0 or 1 by brightness, as surely as it is told to."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, tap: Tensor) -> Tensor:
        light = tap.mean((1, 2, 3)) * self.scale
        return torch.stack([-light, light], 1)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.early = nn.Conv2d(3, 3, 1, bias=False)
        self.top = Sure(1e-3)
        nn.init.constant_(self.early.weight, 1.0)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.top(self.early(self.first(images)))
        return answer


@pytest.fixture
def backbone() -> StagedBackbone:
    return cut(Toy(), ["early"], torch.zeros(1, 3, 6, 4))


@pytest.fixture
def images() -> Samples:
    pixels = np.stack([np.full((6, 4), value, np.uint8) for value in (0, 255, 255)])
    pixels[1, 0, 0] = pixels[2, 0, 0] = 200
    labels = np.array([0, 1, 0])
    preprocess = ImagePreprocess(height=6, width=4)
    return labelled_pictures(pixels, labels, preprocess)


def model(backbone: StagedBackbone, scale: float) -> MultiExit:
    branch = Sure(scale)
    early = Trial("early", ConvBranch(), 0, branch, (), 1, 0.5, 0.5)
    return MultiExit(backbone, {"early": early}, info=ModelInfo(class_names=NAMES))


def answers(backbone: StagedBackbone, images: Samples, scale: float) -> list[OneAnswer]:
    return list(answer_one_by_one(model(backbone, scale), images, range(3), 0.9))


def test_a_sure_branch_answers_and_the_rest_is_saved(
    backbone: StagedBackbone, images: Samples
) -> None:
    found = answers(backbone, images, 10.0)
    assert [a.exit for a in found] == ["early"] * 3
    assert [a.answer for a in found] == ["dark", "light", "light"]
    assert [a.truth for a in found] == ["dark", "light", "dark"]
    assert all(a.confidence >= 0.9 for a in found)


def test_an_unsure_branch_leaves_the_answer_to_the_last_exit(
    backbone: StagedBackbone, images: Samples
) -> None:
    found = answers(backbone, images, 1e-3)
    assert [a.exit for a in found] == ["final"] * 3
    assert all(a.confidence < 0.9 for a in found)


def test_branches_passed_on_the_way_are_paid_for(backbone: StagedBackbone, images: Samples) -> None:
    whole = model(backbone, 1e-3)
    costs = whole.exit_branch_flops()
    [first, *_] = answers(backbone, images, 1e-3)
    assert first.flops == sum(whole.exit_stage_flops()) + sum(costs)
    assert first.saved == pytest.approx(-sum(costs) / sum(whole.exit_stage_flops()))


def test_the_sketch_shows_light_and_dark(backbone: StagedBackbone, images: Samples) -> None:
    _, light, _ = answers(backbone, images, 10.0)
    lines = light.sketch().splitlines()
    assert [len(line) for line in lines] == [4, 4, 4]
    assert lines[0][0] == " "
    assert lines[1] == "@@@@"
    assert "light (right)" in str(light)
