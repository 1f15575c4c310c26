"""A toy model with exits, and the bundle that was exported of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import Cut, cut
from offramp.branches import ConvBranch
from offramp.exporting import export
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.preprocess import ImagePreprocess

SIZE = (9, 7)
CLASSES = 5


class Toy(nn.Module):
    """(B, 3, 9, 7) to (B, 5), with a residual connection across the second cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.third = nn.Conv2d(6, 8, 3, padding=1)
        self.top = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.first(images)).relu()
        x = x + self.second(x).relu()
        top: Tensor = self.top(self.third(x).relu().mean((2, 3)))
        return top


@pytest.fixture(scope="session")
def model() -> MultiExit:
    torch.manual_seed(4)
    backbone = cut(
        Toy().eval(),
        [Cut("one", after=("norm",), taps=("norm",)), "second"],
        torch.zeros(1, 3, *SIZE),
    )
    spec = ConvBranch(filters=2, hidden=3, pool=1)
    chosen = {
        name: Trial(name, spec, 0, spec.build(backbone.features(name), CLASSES).eval(), (), 1, 1, 1)
        for name in backbone.cuts
    }
    info = ModelInfo(None, (ImagePreprocess(height=SIZE[0], width=SIZE[1]),), tuple("abcde"))
    return MultiExit(backbone, chosen, tuple(chosen.values()), info=info)


@pytest.fixture(scope="session")
def folder(model: MultiExit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundles") / "toy"
    export(model, to=place, samples=(samples(), np.arange(61) % CLASSES))
    return place


def samples(count: int = 61) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, 3, *SIZE)).astype(np.float32)
