"""A toy model with exits, and the bundle that was exported of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.staged import Cut, cut
from offramp.branches import ConvBranch
from offramp.exporting import export
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import ModelInfo, Trial
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess

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


class SeenAndHeard(nn.Module):
    """Picture (B, 3, 9, 7) and spectrogram (B, 1, 19, 33) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 5, 3, padding=1)
        self.hear = nn.Conv2d(1, 5, 3)
        self.look = nn.Conv2d(5, 6, 3, padding=1)
        self.answer = nn.Linear(6, CLASSES)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        seen = self.see(picture)
        heard = self.hear(sound)
        both = self.look(seen) * heard.mean((1, 2, 3))[:, None, None, None]
        answer: Tensor = self.answer(both.mean(dim=(2, 3)))
        return answer


SOUND = SpectrogramPreprocess.model_validate(
    {"rate": 8000, "num_samples": 400, "channels": [{"window": 40, "step": 20, "fft": 64}]}
)


@pytest.fixture(scope="session")
def hearing() -> MultiExit:
    """Exits V1 and V2 need no sound; AV1 has learned to do without, and predicts its error."""
    torch.manual_seed(1)
    places = [
        Cut("V1", taps=("see",)),
        Cut("AV1", taps=("see", "hear")),
        Cut("V2", taps=("look",)),
    ]
    sample = torch.zeros(2, 3, *SIZE), torch.zeros(2, *SOUND.shape)
    backbone = cut(SeenAndHeard().eval(), places, sample)
    trials = {}
    for name in backbone.cuts:
        spec = ConvBranch(filters=3, padding=1, hidden=6, error_predictor=True)
        spec = spec.model_copy(update={"absent": "token"}) if name == "AV1" else spec
        branch = spec.build(backbone.features(name), CLASSES).eval()
        trials[name] = Trial(name, spec, 0, branch, (), 1, 1.0, 0.5)
    inputs = ImagePreprocess(height=SIZE[0], width=SIZE[1]), SOUND
    return MultiExit(backbone, trials, info=ModelInfo(None, inputs, tuple("abcde")))


@pytest.fixture(scope="session")
def hearing_folder(
    hearing: MultiExit, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Path:
    place = shared(tmp_path_factory, worker_id) / "hearing"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            export(hearing, to=place)
    return place


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
def folder(model: MultiExit, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    place = shared(tmp_path_factory, worker_id) / "toy"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            export(model, to=place, samples=(samples(), np.arange(61) % CLASSES))
    return place


def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all processes of this test session share, since exporting takes seconds."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def samples(count: int = 61) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, 3, *SIZE)).astype(np.float32)
