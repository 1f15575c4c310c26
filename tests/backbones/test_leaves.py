from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.leaves import find_leaves
from offramp.backbones.places import list_places
from offramp.backbones.staged import cut
from offramp.branches import ConvBranch
from offramp.errors import CutError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.survey import survey_model

IMAGES = torch.randn(2, 3, 11, 7, generator=torch.Generator().manual_seed(1))


class Odd(nn.Module):
    """Decides by values, which no tracing can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return -x if x.sum() > 0 else x * 2


class Odder(Odd):
    pass


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.odd = nn.Sequential(Odder(), nn.ReLU())
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.odd(self.first(x))).mean((2, 3))
        return result


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(2)
    return Network().eval()


FULL_NAME = f"{Odder.__module__}.Odder"


@pytest.mark.parametrize("leaf", [Odder, Odd, "Odder", "Odd", FULL_NAME, "__main__.Odder"])
def test_a_leaf_is_given_as_a_class_or_by_the_name_of_one_of_the_models_classes(
    network: nn.Module, leaf: type[nn.Module] | str
) -> None:
    backbone = cut(network, ["odd"], IMAGES, leaves=[leaf])
    assert torch.equal(backbone(IMAGES), network(IMAGES))


def test_a_staged_backbone_knows_the_leaves_it_was_cut_with(network: nn.Module) -> None:
    assert cut(network, ["odd"], IMAGES, leaves=["Odder", nn.LSTM]).leaves == (FULL_NAME,)
    assert cut(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()), ["0"], IMAGES).leaves == ()


@pytest.mark.parametrize(
    ("leaves", "told"),
    [
        (["Oder"], "no module of the class 'Oder'.*Nearest: Odder"),
        (["torch.nn.modules.rnn.LSTM"], "no module of the class"),
        (["Twin"], r"matches several classes: .*First\.Twin, .*Second\.Twin"),
        ([7], "leaves holds 7"),
        ([Tensor], "leaves holds Tensor"),
        (Odder, r"leaves=\[Odder\]"),
        ("Odder", r"leaves=\['Odder'\]"),
    ],
)
def test_a_leaf_that_is_not_a_class_of_the_model_is_refused(leaves: object, told: str) -> None:
    class First:
        class Twin(nn.Identity): ...

    class Second:
        class Twin(nn.Identity): ...

    model = nn.Sequential(Network(), First.Twin(), Second.Twin())
    with pytest.raises(CutError, match=told):
        find_leaves(model, leaves)  # type: ignore[arg-type]  # wrong on purpose


def test_surveys_and_listings_take_leaves(network: nn.Module) -> None:
    names = [place.name for place in list_places(network, IMAGES, leaves=["Odder"]).places]
    assert names == ["first", "odd.0", "odd", "last"]
    assert len(survey_model(network, IMAGES, leaves=[Odder]).cuts) == len(names)


def test_a_saved_model_with_leaves_loads_again(network: nn.Module, tmp_path: Path) -> None:
    backbone = cut(network, ["odd"], IMAGES, leaves=[Odder])
    spec = ConvBranch(filters=2)
    branch = spec.build(backbone.features("odd"), 5)
    model = MultiExit(backbone, {"odd": Trial("odd", spec, 0, branch.eval(), (), 1, 0.5, 0.5)})
    model.save(tmp_path)
    again = MultiExit.load(tmp_path, network)
    assert again.backbone.leaves == (FULL_NAME,)
    assert torch.equal(again(IMAGES), model(IMAGES))
