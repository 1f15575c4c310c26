import pytest
import torch
import torchvision
from torch import Tensor, nn

from offramp.backbones.top import DenseTop, Top, dense_top, put_top, top_place
from offramp.backbones.zoo import architecture
from offramp.errors import PlanError


def test_a_top_is_two_dense_layers_with_dropout_between() -> None:
    top = dense_top(7, 3, Top(hidden=5, dropout=0.25))
    assert [type(layer) for layer in top] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [tuple(weight.shape) for weight in top.parameters()] == [(5, 7), (5,), (3, 5), (3,)]
    assert [layer.p for layer in top if isinstance(layer, nn.Dropout)] == [0.25]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm:test_resnet", "fc"),
        ("timm:test_vit", "head"),
        ("torchvision:squeezenet1_1", "classifier.1"),
        ("torchvision:mobilenet_v3_small", "classifier.3"),
        ("offramp:demo", "classifier"),
    ],
)
def test_the_top_takes_the_place_of_the_last_layer(name: str, place: str) -> None:
    model = architecture(name)
    assert top_place(model) == place
    put_top(model, Top(hidden=5), 3)
    assert isinstance(model.get_submodule(place), DenseTop)
    side = 160 if name.startswith("timm") else 64
    assert model.eval()(torch.zeros(2, 3, side, side)).shape == (2, 3)


def test_another_top_replaces_the_first_whole() -> None:
    model = torchvision.models.squeezenet1_1()
    put_top(model, Top(hidden=5), 3)
    put_top(model, Top(hidden=6), 4)
    layers = [m for m in model.classifier.modules() if isinstance(m, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [6, 4]


class Answers(nn.Module):
    """Its last layer in the order of construction is not the one that answers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 4)
        self.first = nn.Linear(5, 6)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.first(x))
        return answer


def test_a_network_may_say_which_layer_answers() -> None:
    model = Answers()
    put_top(model, Top(), 3)
    assert model(torch.zeros(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(3, 4)])
def test_a_network_without_a_layer_inside_cannot_take_a_top(model: nn.Module) -> None:
    with pytest.raises(PlanError, match=r"Write `top: null`"):
        put_top(model, Top(), 3)


def test_a_network_with_two_last_layers_cannot_take_a_top() -> None:
    model = architecture("timm:deit_tiny_distilled_patch16_224")
    with pytest.raises(PlanError, match="answers with 2 last layers together"):
        put_top(model, Top(), 3)
