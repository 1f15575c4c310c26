from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offramp.backbones.places import list_places
from offramp.backbones.staged import cut
from offramp.backbones.zoo import architecture
from offramp.compute import count_flops
from offramp.errors import CutError


class Net(nn.Module):
    """Dense links, a size read late, a tensor in pieces, an in-place change: all in one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 4, 1)
        self.top = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.a(x), inplace=True)
        left, right = self.b(first).chunk(2, dim=1)
        y = torch.cat([right, left], 1)
        y += first
        y = self.c(y.relu_()).flatten(2).mean(2) / x.shape[3]
        logits: Tensor = self.top(y)
        return logits


def efficientnet() -> nn.Module:
    return architecture("offramp:demo")


@pytest.mark.parametrize("make", [Net, pytest.param(efficientnet, marks=pytest.mark.slow)])
def test_the_listing_states_what_a_cut_there_carries_and_costs(
    make: Callable[[], nn.Module],
) -> None:
    model, sample = make(), torch.randn(1, 3, 32, 32)
    listing = list_places(model, sample)
    assert listing.total_flops == count_flops(model, (sample,))
    for place in listing.places[:: max(1, len(listing.places) // 12)]:
        backbone = cut(model, [place.name], sample)
        live, (tap,) = backbone.stages[0]((sample,))
        assert place.live_tensors == len(live)
        assert place.live_bytes == sum(t.numel() * t.element_size() for t in live)
        assert place.shape == tuple(tap.shape[1:])
        assert place.flops == backbone.stage_flops()[0]
        assert place.flops_share == place.flops / listing.total_flops


def test_places_are_in_graph_order_each_tensor_once_input_and_answer_left_out() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.ReLU(), nn.Flatten())
    found = list_places(network, torch.zeros(3, 3, 2, 5)).places
    assert [(place.name, place.aliases) for place in found] == [("0", ("1",)), ("2", ())]


class Renamed(nn.Module):
    """Has each of its two layers under a second path as well."""

    def __init__(self, twice: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.blocks = nn.ModuleList([self.conv])
        self.activation = self.relu
        self.twice = twice
        self.parent = [self]

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.blocks[0](x))
        return (self.activation(x) if self.twice else x).mean((2, 3))


def test_a_module_under_two_paths_is_listed_and_cut_under_both() -> None:
    images = torch.zeros(1, 3, 6, 7)
    listed = [(place.name, place.aliases) for place in list_places(Renamed(), images).places]
    assert listed[:2] == [("conv", ("blocks.0",)), ("relu", ("activation",))]
    assert cut(Renamed().eval(), ["blocks.0"], images).tap_shapes["blocks.0"]


def test_a_second_path_of_a_module_called_twice_is_refused_with_its_calls() -> None:
    with pytest.raises(CutError, match=r"'activation' is another name for 'relu'.*relu_0, relu_1"):
        cut(Renamed(twice=True).eval(), ["activation"], torch.zeros(1, 3, 6, 7))


@pytest.mark.slow
def test_densenet201_carries_up_to_49_tensors() -> None:
    found = list_places(architecture("torchvision:densenet201"), torch.zeros(1, 3, 32, 32)).places
    assert max(place.live_tensors for place in found) == 49


class Attends(nn.Module):
    """A convolution before torch's own transformer layer, whose fast path hides its products."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
        self.top = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        logits: Tensor = self.top(self.layer(tokens).mean(1))
        return logits


def test_shares_count_what_torch_s_attention_layers_multiply() -> None:
    model, sample = Attends().eval(), torch.zeros(1, 3, 6, 7)
    listing = list_places(model, sample)
    assert listing.total_flops == count_flops(model, (sample,))
    (conv,) = (place for place in listing.places if place.name == "conv")
    assert conv.flops == 2 * 8 * 3 * 9 * 42
    assert conv.flops_share < 0.3


def test_the_end_of_a_block_is_where_a_container_ends_and_nothing_else_is_alive() -> None:
    found = {place.name: place for place in list_places(Residual(), torch.zeros(1, 3, 6, 7)).places}
    assert {name for name, place in found.items() if place.ends_block} == {"blocks.0", "blocks"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.skip = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.b(self.a(x).relu()) + self.skip(x)
        return result


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.top = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.top(self.blocks(x)).mean((2, 3))
        return logits


class Gives(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, list[int]]:
        return x * 2, [3, 2]


class Takes(nn.Module):
    def forward(self, pair: tuple[Tensor, list[int]]) -> Tensor:
        return pair[0].mean((2, 3)) * pair[1][0]


class Passes(nn.Module):
    """A tuple of a tensor and sizes goes from one leaf to another, past a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
        self.gives, self.takes = Gives(), Takes()

    def forward(self, x: Tensor) -> Tensor:
        pair = self.gives(self.a(x))
        result: Tensor = self.b(pair[0]).mean((2, 3)) + self.takes(pair)
        return result


def test_every_place_that_is_listed_can_be_cut() -> None:
    model, sample, leaves = Passes(), torch.zeros(1, 3, 4, 5), [Gives, Takes]
    found = list_places(model, sample, leaves=leaves).places
    assert [place.name for place in found] == ["a", "takes"]
    for place in found:
        cut(model, [place.name], sample, leaves=leaves)
    with pytest.raises(CutError, match="gives returns a tuple"):
        cut(model, ["b"], sample, leaves=leaves)
