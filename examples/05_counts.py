"""Exits that count: how many dots a picture has, with a sound that is louder the more there are.

python examples/05_counts.py      (needs pip install 'offramp[train]')

Some pictures are too dark to count in, and the sound helps there. An early exit sees only, or sees
and hears; error predictors tell which answers to trust, and thresholds keep a promise on the mean
absolute error (MAE). Everything is made up and small, so that it takes about a minute.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import offramp as orp
from offramp.backbones.staged import Cut
from offramp.preprocess.spectrogram import VGGISH

HEIGHT, WIDTH, MOST = 32, 48, 20
Scenes = tuple[tuple[torch.Tensor, torch.Tensor], NDArray[np.float32]]


def scenes(number: int, seed: int) -> Scenes:
    """Pictures (N, 1, H, W), spectrograms (N, 1, 96, 64) of one second each, and counts (N,)."""
    rng = np.random.default_rng(seed)
    pictures, sounds = [], []
    counts = rng.integers(0, MOST + 1, number)
    for count in counts:
        picture = np.zeros((HEIGHT, WIDTH))
        for row, column in zip(
            rng.integers(1, HEIGHT - 1, count), rng.integers(1, WIDTH - 1, count), strict=True
        ):
            picture[row - 1 : row + 2, column - 1 : column + 2] += 0.5
        light = rng.uniform(0, 1) ** 0.5
        pictures.append(light * picture + rng.normal(scale=0.1, size=picture.shape))
        loudness = 0.002 * (count + rng.normal(scale=1.5)) + 0.01
        sounds.append(VGGISH(rng.normal(scale=abs(loudness), size=15_600).astype(np.float32)))
    inputs = torch.tensor(np.array(pictures)[:, None]).float(), torch.tensor(np.array(sounds))
    return inputs, counts.astype(np.float32)


class Counter(nn.Module):
    """Adds up a map of what is seen and heard; each layer of the picture is a place to leave."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.hear = nn.Sequential(
            nn.AvgPool2d((96, 4)), nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)
        )
        self.mix = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.look = nn.Sequential(nn.Conv2d(24, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU())
        self.top = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, picture: torch.Tensor, sound: torch.Tensor) -> torch.Tensor:
        """Counts (B, 1)."""
        seen, heard = self.see(picture), self.hear(sound)
        heard = heard[:, :, None, None].expand(-1, -1, HEIGHT // 2, WIDTH // 2)
        counts: torch.Tensor = self.top(self.look(self.mix(torch.cat([seen, heard], 1))))
        return counts


def trained(train: Scenes, epochs: int = 12) -> nn.Module:
    """The backbone, trained in plain torch."""
    torch.manual_seed(0)
    model = Counter().train()
    (pictures, sounds), counts = train[0], torch.tensor(train[1])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(counts)).reshape(-1, 32):
            error = (model(pictures[rows], sounds[rows])[:, 0] - counts[rows]).abs().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    """Train, cut, train branches that see or see and hear, and calibrate."""
    train, validation, calibration, test = (
        scenes(number, seed) for seed, number in enumerate((800, 200, 1000, 500))
    )
    sample = train[0][0][:1], train[0][1][:1]
    backbone = orp.cut(
        trained(train), after=["see", Cut("see+hear", taps=("see", "hear"))], sample=sample
    )
    branch: Any = {"filters": 8, "hidden": 64, "standardise": True, "error_predictor": True}
    exits = orp.fit_branches(
        backbone,
        {name: [orp.ConvBranch(**branch)] for name in ("see", "see+hear")},
        *(train, validation),
        task="regression",
        seeds=[0],
        epochs=15,
        lr=1e-3,
    )
    print(orp.tradeoff(exits.collect(test)))
    policy = orp.calibrate(exits.collect(calibration), max_rise=0.2, loss_bound=MOST)
    print(policy)
    outputs = exits.collect(test)
    error = np.abs(policy.answers(outputs)[:, 0] - test[1]).mean()
    spent = policy.cost(outputs).mean() / sum(backbone.stage_flops())
    print(f"on new scenes: MAE {error:.2f} at {spent:.0%} of the backbone's FLOPs")


if __name__ == "__main__":
    main()
