from typing import Any

import pytest
import torch
from torch import fx, nn

from offramp.branches import ConvBranch
from offramp.branches.conv import Modulation
from offramp.compute import count_params
from offramp.errors import PlanError, ShapeError
from offramp.spec import FeatureShape

MAP = FeatureShape(7, 11, 9)


def head_inputs(spec: ConvBranch) -> int:
    branch = spec.build(MAP, 5)
    assert branch(torch.randn(3, 7, 11, 9)).shape == (3, 5)
    first = branch.head[0]
    assert isinstance(first, nn.Linear)
    return first.in_features


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        ({}, 16 * 4 * 3),  # 11x9 -> 9x7 -> 4x3
        ({"pool": 1}, 16 * 9 * 7),
        ({"pool": "global"}, 16),
        ({"padding": 1, "pool": 4}, 16 * 2 * 2),
        ({"kernel": 5, "dilation": 2, "padding": 4, "pool": 3}, 16 * 3 * 3),
        ({"layers": 2, "filters": 6, "padding": (2, 0), "pool": 2}, 6 * 5 * 4),
        ({"layers": 0}, 7 * 5 * 4),
        ({"layers": 0, "pool": "global"}, 7),
    ],
)
def test_the_head_reads_what_convolutions_and_pooling_leave(
    settings: dict[str, Any], inputs: int
) -> None:
    assert head_inputs(ConvBranch(**settings)) == inputs


def test_the_pooling_baseline_is_a_head_on_channel_means() -> None:
    branch = ConvBranch(layers=0, pool="global").build(MAP, 5).eval()
    features = torch.randn(3, 7, 11, 9)
    torch.testing.assert_close(branch(features), branch.head(features.mean(dim=(2, 3))))


def test_the_order_is_convolution_activation_pooling() -> None:
    branch = ConvBranch(layers=2, norm=True, activation="gelu").build(MAP, 5)
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.GELU] * 2
    parts = [*branch.convolutions, *branch.pool]
    assert [type(part) for part in parts] == [*kinds, nn.MaxPool2d]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_last_relu_after_the_pooling_changes_nothing(
    layers: int,
) -> None:
    branch = ConvBranch(layers=layers, dropout=0.0).build(MAP, 5)
    features = torch.randn(3, 7, 11, 9).contiguous(memory_format=torch.channels_last)
    convolutions = [part for part in branch.convolutions if isinstance(part, nn.Conv2d)]
    x = features
    for convolution in convolutions:
        x = torch.relu(convolution(x))
    pooled = torch.max_pool2d(x, 2).flatten(1)
    assert (pooled == 0).any()
    found, expected = branch(features), branch.head(pooled)
    assert torch.equal(found, expected)
    weights = list(branch.parameters())
    ours, theirs = (torch.autograd.grad(out.square().sum(), weights) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_batch_norm_costs_two_weights_per_filter() -> None:
    plain, normed = (ConvBranch(norm=norm).build(MAP, 5) for norm in (False, True))
    assert count_params(normed) - count_params(plain) == 32


def test_paddings_must_be_as_many_as_layers() -> None:
    with pytest.raises(PlanError, match="padding has 3 numbers for 2 layers; give one per"):
        ConvBranch(layers=2, padding=(1, 0, 1))


def test_a_kernel_larger_than_the_map_names_a_padding_that_works() -> None:
    with pytest.raises(ShapeError, match=r"spans 13 cells.* 11x9 map.* Use padding=2 or more"):
        ConvBranch(kernel=7, dilation=2).build(MAP, 5)
    ConvBranch(kernel=7, dilation=2, padding=2, pool=1).build(MAP, 5)


def test_the_layer_that_runs_out_of_map_is_named() -> None:
    with pytest.raises(ShapeError, match="layer 3 gets a 3x1 map padded by 0"):
        ConvBranch(kernel=5, layers=3).build(MAP, 5)


def test_a_window_larger_than_the_map_names_one_that_fits() -> None:
    with pytest.raises(ShapeError, match=r"pool=8 is larger than the 9x7 map.* Use pool=7 or less"):
        ConvBranch(pool=8).build(MAP, 5)


def test_wrong_channels_are_refused_with_both_numbers() -> None:
    branch = ConvBranch().build(MAP, 5)
    with pytest.raises(ShapeError, match=r"\(B, 7, 11, 9\).*\(2, 8, 11, 9\)"):
        branch(torch.randn(2, 8, 11, 9))


def test_a_first_tap_that_is_not_a_map_is_refused() -> None:
    with pytest.raises(ShapeError, match="a convolutional branch needs a 4-D map"):
        ConvBranch().build((768,), 5)
    with pytest.raises(ShapeError, match="name the map first"):
        ConvBranch().build(((768,), MAP), 5)


def test_side_inputs_scale_and_shift_what_the_last_convolution_gives() -> None:
    branch = ConvBranch(dropout=0.0).build((MAP, (6,), FeatureShape(3, 2, 2)), 5).eval()
    features, vector, small = torch.randn(2, 7, 11, 9), torch.randn(2, 6), torch.randn(2, 3, 2, 2)
    side = torch.cat([vector, small.mean(dim=(2, 3))], dim=1)
    modulate = branch.modulate
    assert isinstance(modulate, Modulation)
    gamma, beta = (layer(side)[..., None, None] for layer in (modulate.gamma, modulate.beta))
    expected = branch.head(branch.pool(gamma * branch.convolutions(features) + beta).flatten(1))
    torch.testing.assert_close(branch(features, vector, small), expected)


def test_side_inputs_need_a_convolution() -> None:
    with pytest.raises(ShapeError, match="no convolution that its 1 side inputs could change"):
        ConvBranch(layers=0, pool="global").build((MAP, (6,)), 5)


def test_a_side_input_that_is_neither_a_vector_nor_a_map_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"each a vector \(B, C\) or a map"):
        ConvBranch().build((MAP, (6, 4)), 5)


def test_a_traced_branch_answers_the_same_for_any_batch() -> None:
    branch = ConvBranch(standardise=True, norm=True).build(MAP, 5).eval()
    traced = fx.symbolic_trace(branch)
    for batch in (1, 4):
        features = torch.randn(batch, 7, 11, 9)
        torch.testing.assert_close(traced(features), branch(features), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"kernel": 0}, {"layers": -1}, {"pool": "max"}, {"pool": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=next(iter(settings))):
        ConvBranch(**settings)
