import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.data import Samples
from offramp.data.images import at_size, labelled_pictures
from offramp.errors import DataError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.preprocess import ImagePreprocess
from offramp.run.rivals import static_rivals

CLASSES = 3


class Toy(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.drop = nn.Dropout(0.9)
        self.top = nn.Linear(5, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        top: Tensor = self.top(self.drop(self.norm(self.first(images)).relu()).mean((2, 3)))
        return top


def images(count: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 11, 11), np.uint8)
    labels = rng.integers(0, CLASSES, count)
    preprocess = ImagePreprocess(height=12, width=12)
    return labelled_pictures(pixels, labels, preprocess)


def toy(norm: bool = True) -> tuple[nn.Module, MultiExit]:
    torch.manual_seed(5)
    module = Toy(norm).eval()
    backbone = cut(module, ["first"], torch.zeros(1, 3, 12, 12))
    spec = ConvBranch(filters=2)
    branch = spec.build(backbone.tap_shapes["first"][0], CLASSES)
    return module, MultiExit(backbone, {"first": Trial("first", spec, 0, branch, (), 1, 1.0, 0.5)})


def test_the_backbone_is_tried_smaller_as_it_is_and_with_new_statistics() -> None:
    module, model = toy()
    test = images(70, 1)
    plain, renewed = static_rivals(model, images(130, 0), test, [8])
    small = at_size(test, 8, 8)
    right = module(small.read(range(70)).inputs[0]).argmax(1).numpy() == test.targets
    assert plain.value == right.mean()
    assert plain.resolution == 8
    assert plain.flops < sum(model.backbone.stage_flops()) / 2
    assert "128 training images" in renewed.note


def test_new_statistics_are_those_of_the_training_images() -> None:
    module, model = toy()
    train = images(128, 0)
    test = images(70, 1)
    _, renewed = static_rivals(model, train, test, [8])
    [pixels] = at_size(train, 8, 8).read(range(128)).inputs
    with torch.no_grad():
        maps = [module.first(half) for half in (pixels[:64], pixels[64:])]  # type: ignore[operator]
        norm = module.norm
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
        norm.running_var = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
        answers = module(at_size(test, 8, 8).read(range(70)).inputs[0])
    assert renewed.value == pytest.approx((answers.argmax(1).numpy() == test.targets).mean())


def test_the_users_backbone_keeps_its_statistics() -> None:
    module, model = toy()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    static_rivals(model, images(128, 0), images(5, 1), [8])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_without_batch_norm_there_is_nothing_to_renew() -> None:
    _, model = toy(norm=False)
    assert len(static_rivals(model, images(64, 0), images(5, 1), [8])) == 1


def test_too_few_images_for_statistics_are_refused() -> None:
    _, model = toy()
    with pytest.raises(DataError, match="63 training images are too few"):
        static_rivals(model, images(63, 0), images(5, 1), [8])
