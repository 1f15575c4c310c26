"""A small backbone, pictures whose class shows in them, and branches for them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import BranchSpec, ConvBranch, SLViT
from offramp.multiexit.model import MultiExit
from offramp.training import fit_branches

Images = tuple[Tensor, Tensor]
Branches = dict[str, Sequence[BranchSpec]]


def make_images(count: int, seed: int) -> Images:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=draw)
    images = torch.randn(count, 3, 12, 8, generator=draw)
    return images + labels[:, None, None, None] * torch.tensor([1.0, -0.5, 0.2])[
        :, None, None
    ], labels


@pytest.fixture
def train() -> Images:
    return make_images(41, 0)


@pytest.fixture
def validation() -> Images:
    return make_images(23, 1)


@pytest.fixture
def backbone() -> StagedBackbone:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Conv2d(3, 7, 3, padding=1),
            nn.BatchNorm2d(7),
            nn.ReLU(),
            nn.Conv2d(7, 5, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(5, 6, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
    return cut(net, ["2", "4"], torch.zeros(2, 3, 12, 8))


@pytest.fixture
def branches() -> Branches:
    small = {"hidden": 9, "dropout": 0.3}
    return {
        "2": [
            SLViT(patch=4, dim=6, heads=2, standardise=True, **small),
            ConvBranch(filters=3, norm=True, **small),
        ],
        "4": [ConvBranch(filters=3, standardise=True, **small)],
    }


@pytest.fixture
def fit(
    backbone: StagedBackbone, branches: Branches, train: Images, validation: Images
) -> Callable[..., MultiExit]:
    """`fit_branches` on all of these, in a few short epochs."""

    def call(branches: Branches = branches, **changes: object) -> MultiExit:
        options = {
            "seeds": [3, 5],
            "epochs": 3,
            "batch_size": 11,
            "lr": 3e-3,
            "tensorboard": False,
        } | changes
        data = [options.pop("train", train), options.pop("validation", validation)]
        return fit_branches(backbone, branches, *data, **options)  # type: ignore[arg-type]

    return call
