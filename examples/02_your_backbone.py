"""Exits on a network of your own with arrays of your own; nothing here comes from offramp's zoo.

python examples/02_your_backbone.py
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import offramp as orp

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


class StripeNet(nn.Module):
    """Your trained CNN: any module that torch FX can trace. (B, 1, 32, 32) to (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.third = nn.Sequential(nn.Conv2d(16, 64, 3, padding=1), nn.ReLU())
        self.fourth = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
        self.top = nn.Linear(64, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images: (B, 1, 32, 32) to logits (B, 4)."""
        features = self.fourth(self.third(self.second(self.first(images))))
        logits: Tensor = self.top(features.mean((2, 3)))
        return logits


def stripes(count: int, seed: int) -> Arrays:
    """Noisy stripes of one of four directions: images (N, 1, 32, 32) and labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    row, column = np.mgrid[:32, :32]
    angle = (labels * np.pi / 4)[:, None, None]
    wave = np.sin(row * np.cos(angle) + column * np.sin(angle) + rng.uniform(0, 6, (count, 1, 1)))
    noisy = wave + rng.normal(0, 2, wave.shape)
    return noisy[:, None].astype(np.float32), labels


def pretrain(network: nn.Module, data: Arrays, epochs: int = 6) -> None:
    """Stand in for the training that your network already had."""
    loader = DataLoader(TensorDataset(*map(torch.from_numpy, data)), 64, shuffle=True)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(network(images), labels)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    network.eval()


torch.manual_seed(0)
train, validation, test = stripes(800, seed=1), stripes(200, seed=2), stripes(400, seed=3)
network = StripeNet()
pretrain(network, train)

# Where could it be cut? `first` gives 8x16x16, `second` 16x8x8.
backbone = orp.cut(network, after=["first", "second"], sample=torch.from_numpy(train[0][:1]))
for name in backbone.cuts:
    (tap,) = backbone.tap_shapes[name]
    print(f"{name}: a branch reads {tap}")

small = {"hidden": 32, "standardise": True}  # a small network calls for small branches
model = orp.fit_branches(
    backbone,
    {
        "first": [orp.SLViT(patch=4, dim=16, heads=2, **small), orp.ConvBranch(**small)],
        "second": [orp.SLViT(patch=2, dim=16, heads=2, **small), orp.ConvBranch(**small)],
    },
    train,
    validation,
    seeds=[0],
    epochs=12,
    lr=1e-3,
)
print(orp.tradeoff(model.collect(test)))

# Your network is as it was: same weights, same mode, still yours to train.
print("trainable still:", all(weight.requires_grad for weight in network.parameters()))
