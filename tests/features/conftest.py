"""A small backbone and pictures for it."""

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import Cut, StagedBackbone, cut


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(19, 3, 12, 8, generator=draw), torch.arange(19) % 4


@pytest.fixture
def backbone() -> StagedBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 7, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(7, 5, 3, stride=2, padding=1),
            nn.Sigmoid(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 4),
        )
    places: list[str | Cut] = ["1", Cut("two", taps=("2", "3")), "5"]
    return cut(net, places, torch.zeros(2, 3, 12, 8))
