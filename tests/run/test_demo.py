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
from offramp.report import Picture
from offramp.run.demo import sketch, told
from offramp.run.pictures import answered_pictures
from offramp.run.results import fixed_policy

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


def answers(backbone: StagedBackbone, images: Samples, scale: float) -> list[Picture]:
    whole = model(backbone, scale)
    return list(answered_pictures(whole, images, 3, fixed_policy(whole.names, 0.9)))


def test_a_sure_branch_answers_a_picture(backbone: StagedBackbone, images: Samples) -> None:
    found = answers(backbone, images, 10.0)
    assert [each.answer.exit for each in found] == ["early"] * 3
    assert [each.answer.text for each in found] == ["dark", "light", "light"]
    assert [each.truth for each in found] == ["dark", "light", "dark"]
    assert [each.is_right for each in found] == [True, True, False]
    assert all(each.confidence >= 0.9 for each in found)


def test_an_unsure_branch_leaves_the_answer_to_the_last_exit(
    backbone: StagedBackbone, images: Samples
) -> None:
    found = answers(backbone, images, 1e-3)
    assert [each.answer.exit for each in found] == ["final"] * 3
    assert all(0.5 <= each.confidence < 0.9 for each in found)


def test_as_many_pictures_are_answered_as_wanted(backbone: StagedBackbone, images: Samples) -> None:
    policy = fixed_policy(("early", "final"), 0.9)
    for number in (0, 2):
        found = list(answered_pictures(model(backbone, 1.0), images, number, policy))
        assert len(found) == number


def test_pictures_without_class_names_are_left_out(
    backbone: StagedBackbone, images: Samples
) -> None:
    unnamed = model(backbone, 1.0)
    unnamed.info = ModelInfo()
    assert not list(answered_pictures(unnamed, images, 3, fixed_policy(unnamed.names, 0.9)))


def test_the_sketch_shows_light_and_dark(backbone: StagedBackbone, images: Samples) -> None:
    _, light, _ = answers(backbone, images, 10.0)
    lines = sketch(light.image)
    assert [len(line) for line in lines] == [4, 4, 4]
    assert lines[0][0] == " "
    assert lines[1] == "@@@@"


def test_an_answer_is_printed_next_to_its_sketch(backbone: StagedBackbone, images: Samples) -> None:
    _, right, wrong = answers(backbone, images, 10.0)
    assert "light (right)" in told(right).splitlines()[0]
    assert "light (wrong, it is dark)" in told(wrong).splitlines()[0]
    for fact in ("exit       early", "confidence 1.000", "MFLOP", "of the whole backbone"):
        assert fact in told(right)
