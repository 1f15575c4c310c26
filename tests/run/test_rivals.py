import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.data import Samples
from offramp.data.images import at_size, labelled_pictures
from offramp.errors import DataError, PlanError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.preprocess import ImagePreprocess
from offramp.run.rivals import SAMPLE_SEED, check_rivals, static_rivals

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


def toy(module: Toy | None = None, norm: bool = True) -> tuple[Toy, MultiExit]:
    torch.manual_seed(5)
    module = module or Toy(norm).eval()
    backbone = cut(module, ["first"], torch.zeros(1, 3, 12, 12))
    spec = ConvBranch(filters=2)
    branch = spec.build(backbone.tap_shapes["first"][0], CLASSES)
    return module, MultiExit(backbone, {"first": Trial("first", spec, 0, branch, (), 1, 1.0, 0.5)})


def test_the_backbone_is_tried_smaller_as_it_is_and_with_new_statistics() -> None:
    module, model = toy()
    test = images(70, 1)
    plain, renewed = static_rivals(model, images(130, 0), test, [8])
    small = at_size(test, 8)
    right = module(small.read(range(70)).inputs[0]).argmax(1).numpy() == test.targets
    assert plain.value == right.mean()
    assert plain.resolution == 8
    assert plain.flops < sum(model.backbone.stage_flops()) / 2
    assert "128 training images" in renewed.note


def answers_with_statistics_of(module: Toy, pixels: Tensor, images: Tensor) -> NDArray[np.int64]:
    with torch.no_grad():
        maps = [module.first(part) for part in torch.split(pixels, 64)]
        norm = module.norm
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
        norm.running_var = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
        answers: NDArray[np.int64] = module(images).argmax(1).numpy()
        return answers


def test_new_statistics_are_those_of_the_training_images() -> None:
    module, model = toy()
    train = images(128, 0)
    test = images(70, 1)
    _, renewed = static_rivals(model, train, test, [8])
    mixed = train.sample(128, SAMPLE_SEED, shuffled=True)
    [pixels] = at_size(mixed, 8).read(range(128)).inputs
    [values] = at_size(test, 8).read(range(70)).inputs
    answers = answers_with_statistics_of(module, pixels, values)
    assert renewed.value == pytest.approx((answers == test.targets).mean())


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


def nearest_mean(train: Samples) -> Toy:
    """A network that knows the classes by their mean features, at normalised brightness."""
    torch.manual_seed(5)
    module = Toy(norm=True).eval()
    [pixels] = train.read(range(len(train))).inputs
    answers_with_statistics_of(module, pixels, pixels)  # which sets them
    with torch.no_grad():
        features = module.norm(module.first(pixels)).relu().mean((2, 3))
        means = torch.stack([features[train.targets == c].mean(0) for c in range(CLASSES)])
        module.top.weight.copy_(means)
        module.top.bias.copy_(-(means**2).sum(1) / 2)
    return module


def test_the_order_of_the_training_images_decides_nothing_about_a_rival() -> None:
    """A folder is sorted by class, so that its first images are all of one."""
    rng = np.random.default_rng(3)
    classes = np.repeat([0, 1, 2], 80)
    pixels = rng.integers(0, 60, (240, 11, 11)) + (90 * classes)[:, None, None]
    by_class = labelled_pictures(
        pixels.astype(np.uint8), classes, ImagePreprocess(height=12, width=12)
    )
    mixed = by_class.subset(rng.permutation(240))
    _, model = toy(nearest_mean(mixed))

    def value(train: Samples) -> float:
        return static_rivals(model, train, by_class, [12], train_images=64)[1].value

    assert value(by_class.subset(range(64))) < 0.8
    assert value(by_class) > 0.95
    assert value(mixed) > 0.95


def test_rivals_that_could_not_be_tried_after_training_are_refused_before() -> None:
    class Deep(Toy):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(F.avg_pool2d(images, 6))

    module = Deep(norm=True).eval()
    check_rivals(module, images(64, 0), [8], 2000)
    check_rivals(module, images(64, 0), [], 2000)
    with pytest.raises(PlanError, match="does not run on 4x4 pictures, which rival_sizes"):
        check_rivals(module, images(64, 0), [8, 4], 2000)
    with pytest.raises(DataError, match="63 training images are too few"):
        check_rivals(module, images(64, 0), [8], 63)
    check_rivals(Toy(norm=False), images(9, 0), [8], 63)


def test_a_backbone_that_holds_a_lock_has_rivals() -> None:
    module = Toy(norm=True).eval()
    module.lock = threading.Lock()  # type: ignore[assignment]  # nothing that torch registers
    check_rivals(module, images(64, 0), [8], 2000)
    _, model = toy(module)
    _, without = toy(Toy(norm=True).eval())
    without.backbone.original.load_state_dict(module.state_dict())
    with_lock, plain = (
        static_rivals(each, images(64, 0), images(9, 1), [8]) for each in (model, without)
    )
    assert [rival.value for rival in with_lock] == [rival.value for rival in plain]
