import pytest
import torch
from torch import nn

from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.branches.head import POSITION_STD, HeadSettings, mlp_head
from offramp.spec import FeatureShape

MAP = FeatureShape(48, 8, 8)


def kinds(settings: HeadSettings) -> list[type[nn.Module]]:
    return [type(part) for part in mlp_head(9, 4, settings)]


def test_the_head_is_two_hidden_layers_and_no_activation_at_the_end() -> None:
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert kinds(HeadSettings()) == [*hidden, *hidden, nn.Linear]


def test_dropout_goes_where_it_is_put() -> None:
    def places(**settings: object) -> list[int]:
        parts = kinds(HeadSettings.model_validate(settings))
        return [index for index, part in enumerate(parts) if part is nn.Dropout]

    assert places() == [2, 5]
    assert places(dropout_place="first") == [2]
    assert places(dropout_place="last") == [5]
    assert places(dropout=0) == []


def test_a_regression_can_answer_below_zero() -> None:
    torch.manual_seed(0)
    assert mlp_head(9, 1, HeadSettings()).eval()(torch.randn(50, 9)).min() < 0


@pytest.mark.parametrize(
    "spec",
    [SLViT(patch=2, layers=2, final_norm=True), ConvBranch(layers=2, filters=64, norm=True)],
    ids=lambda spec: str(spec.kind),
)
def test_weights_start_he_normal_biases_zero_and_norms_as_they_are(spec: BranchSpec) -> None:
    torch.manual_seed(0)
    branch = spec.build(MAP, 40)
    matrices = 0
    for name, weight in branch.named_parameters():
        if weight.ndim == 1:
            is_scale = "norm" in name or "convolutions" in name
            expected = 1.0 if is_scale and name.endswith("weight") else 0.0
            assert (weight == expected).all(), name
        elif name != "position":
            fan_in = weight[0].numel()
            spread = weight.std() / (2 / fan_in) ** 0.5
            assert abs(spread - 1) < 5 / (2 * weight.numel()) ** 0.5, name  # 5 standard errors
            matrices += 1
    assert matrices == (12 if spec.kind == "slvit" else 5)


def test_positions_start_small() -> None:
    torch.manual_seed(0)
    position = SLViT(patch=1).build(MAP, 3).position
    assert position.std().item() == pytest.approx(POSITION_STD, rel=0.1)
