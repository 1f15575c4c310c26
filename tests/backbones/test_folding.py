"""Quicker copies of stages against the stages themselves."""

from copy import deepcopy
from typing import cast

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from offramp.backbones.folding import TOLERANCE, folded, quickened
from offramp.backbones.stage import Stage
from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.backbones.zoo import build

CPU = torch.device("cpu")
IMAGES = torch.randn(3, 3, 13, 9, generator=torch.Generator().manual_seed(0))


def lively(model: nn.Module) -> nn.Module:
    """Give every batch norm statistics and weights that folding cannot leave out unseen."""
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=draw))
            cast(Tensor, module.running_var).uniform_(0.3, 3, generator=draw)
            if module.affine:
                nn.init.uniform_(module.weight, -2, 2, generator=draw)
                nn.init.uniform_(module.bias, -1, 1, generator=draw)
    return model.eval()


def stages_of(backbone: StagedBackbone) -> list[Stage]:
    return cast(list[Stage], list(backbone.stages))


def first_stage(*layers: nn.Module, taps: tuple[str, ...] = ()) -> Stage:
    net = lively(nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4)))
    net(IMAGES)
    last = str(len(layers) - 1)
    return stages_of(cut(net, [Cut("here", (last,), (*taps, last))], IMAGES))[0]


def norms(stage: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in stage.modules())


def all_of(stages: list[Stage], images: Tensor) -> list[Tensor]:
    live: tuple[Tensor, ...] = (images,)
    found: list[Tensor] = []
    with torch.inference_mode():  # never across a yield: the mode would leak into other tests
        for stage in stages:
            live, taps = stage(live)
            found += [*taps, *live]
    return found


def difference(stages: list[Stage], quick: list[Stage], images: Tensor) -> float:
    pairs = zip(all_of(quick, images), all_of(stages, images), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(5),
        nn.BatchNorm2d(5, affine=False),
        BatchNormAct2d(5, eps=0.1),
        BatchNormAct2d(5, apply_act=False),
    ],
    ids=["plain", "no weights", "with activation", "activation off"],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_after_a_convolution_is_folded(norm: nn.Module, bias: bool) -> None:
    stage = first_stage(nn.Conv2d(3, 5, 3, bias=bias), deepcopy(norm), nn.Conv2d(5, 2, 3))
    quick = folded(stage)
    assert (norms(stage), norms(quick)) == (1, 0)
    assert difference([stage], [quick], IMAGES) < 1e-5


@pytest.mark.parametrize("groups", [1, 3])
def test_a_norm_whose_output_is_the_tap_is_folded_too(groups: int) -> None:
    stage = first_stage(nn.Conv2d(3, 6, 3, stride=2, groups=groups), nn.BatchNorm2d(6))
    quick = folded(stage)
    assert norms(quick) == 0
    assert difference([stage], [quick], IMAGES) < 1e-5


class Clip(nn.Module):
    """A stem in three dimensions, with a table of five axes, before maps of two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, (1, 3, 3))
        self.register_buffer("table", torch.linspace(0, 1, 4).view(1, 4, 1, 1, 1))
        self.block = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
        self.top = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = (self.stem(x.unsqueeze(2)) + self.table).squeeze(2)
        result: Tensor = self.top(self.block(y)).mean((2, 3))
        return result


def test_weights_of_five_axes_are_accepted_and_maps_are_stored_channels_last() -> None:
    stages = stages_of(cut(lively(Clip()), ["block"], IMAGES))
    quick = quickened(stages, [(3, 13, 9)], CPU)
    (values,) = all_of(quick, IMAGES)[:1]
    assert norms(quick[0]) == 0
    assert values.is_contiguous(memory_format=torch.channels_last)
    assert difference(stages, quick, IMAGES) < TOLERANCE


def test_a_convolution_in_one_dimension_takes_in_its_norm() -> None:
    stage = first_stage(nn.Flatten(2), nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5), nn.ReLU())
    quick = folded(stage)
    assert norms(quick) == 0
    assert difference([stage], [quick], IMAGES) < 1e-5


def test_a_convolution_whose_own_output_is_tapped_keeps_its_norm() -> None:
    stage = first_stage(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), taps=("0",))
    assert norms(folded(stage)) == 1


class Skip(nn.Module):
    """The convolution is read twice, or a module runs twice, as told."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.same = self.conv  # under another name

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        if self.way == "read twice":
            return cast(Tensor, self.norm(first) + first)
        if self.way == "convolution twice":
            return cast(Tensor, self.norm(first) + self.same(x * 2))
        return cast(Tensor, self.norm(first) + self.norm(self.other(x)))


@pytest.mark.parametrize("way", ["read twice", "convolution twice", "norm twice"])
def test_shared_modules_are_not_folded(way: str) -> None:
    stage = first_stage(Skip(way), nn.ReLU())
    quick = folded(stage)
    assert norms(quick) == 1
    assert difference([stage], [quick], IMAGES) == 0


def test_a_norm_without_statistics_is_not_folded() -> None:
    stage = first_stage(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    (norm,) = (module for module in stage.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean = norm.running_var = None
    assert norms(folded(stage)) == 1


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self._conv_forward(x, self.weight / self.weight.std(), self.bias)
        return answer


def test_a_convolution_of_another_class_is_not_folded() -> None:
    net = lively(nn.Sequential(Standardised(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten()))
    [stage, _] = stages_of(cut(net, ["2"], IMAGES, leaves=[Standardised]))
    quick = folded(stage)
    assert norms(quick) == 1
    assert difference([stage], [quick], IMAGES) == 0


def test_the_model_and_the_stages_keep_every_bit_and_their_layout() -> None:
    net = lively(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten()))
    backbone = cut(net, ["2"], IMAGES)
    kept = [*net.state_dict().values(), *backbone.state_dict().values()]
    before = [(tensor.clone(), tensor.stride(), tensor.data_ptr()) for tensor in kept]
    code = backbone.stages[0].body.code  # type: ignore[union-attr]
    quickened(stages_of(backbone), backbone.input_shapes, CPU)
    for tensor, (value, stride, place) in zip(kept, before, strict=True):
        assert torch.equal(tensor, value)
        assert (tensor.stride(), tensor.data_ptr()) == (stride, place)
    assert backbone.stages[0].body.code == code  # type: ignore[union-attr]


def test_quick_stages_stay_frozen() -> None:
    stage = first_stage(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    [quick] = quickened([stage], [(3, 13, 9)], CPU)
    assert not any(value.requires_grad for value in quick.parameters())
    assert not any(module.training for module in quick.train().modules())


class Viewed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = x.view(len(x), -1)
        return flat


class Strided(nn.Module):
    """Gives other numbers where the layout is another, without failing."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.stride(1)


@pytest.mark.parametrize("module", [Viewed(), Strided()])
def test_a_stage_that_depends_on_the_layout_keeps_it_and_is_folded(module: nn.Module) -> None:
    net = lively(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), module, nn.Sigmoid()))
    backbone = cut(net, ["2"], IMAGES, leaves=[Viewed, Strided])
    quick = quickened(stages_of(backbone)[:1], backbone.input_shapes, CPU)
    assert norms(quick[0]) == 0
    assert difference(stages_of(backbone)[:1], quick, IMAGES) < 1e-5


def test_stages_that_random_inputs_break_are_taken_as_they_are() -> None:
    net = lively(nn.Sequential(nn.Embedding(8, 5), nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6)))
    numbers = torch.arange(8).reshape(2, 4)
    backbone = cut(nn.Sequential(net, nn.Flatten()), ["0.2"], numbers)
    quick = quickened(stages_of(backbone)[:1], backbone.input_shapes, CPU)
    assert difference(stages_of(backbone)[:1], quick, numbers) == 0


def test_the_shipped_backbone_agrees_with_its_real_weights() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = cut(build("offramp:demo"), ["blocks.1.1", "blocks.4.1", "global_pool"], images)
    stages = stages_of(backbone)[:-1]
    quick = quickened(stages, backbone.input_shapes, CPU)
    assert (sum(map(norms, stages)), sum(map(norms, quick))) == (49, 0)
    assert 0 < difference(stages, quick, images) < TOLERANCE
