"""Runs on sounds, alone and beside pictures, from training to new files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from offramp.cli import app
from offramp.errors import DataError
from offramp.run.opened import open_run
from offramp.run.plan import load_plan
from offramp.run.steps import train

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

soundfile: Any = pytest.importorskip("soundfile")

NETWORK = """
import torch
from torch import nn

def heard():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 4, 3, stride=2)
        self.hear = nn.Linear(33, 4)
        self.answer = nn.Linear(4, 2)

    def forward(self, picture, sound):
        heard = self.hear(sound.mean((1, 2)))
        return self.answer(self.look(picture).mean((2, 3)) + heard)

def both():
    return Both()
"""
CHAIN = "{rate: 8000, num_samples: 400, channels: [{window: 64, step: 32, fft: 64}]}"
PLAN = """
backbone: {name: python}
data: DATA
branches: {"CUT": [{kind: conv, filters: 2, hidden: 5, kernel: 1}]}
train: {epochs: 1, batch_size: 8}
evaluate: {timing_repeats: 0, bootstrap_draws: 20}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Low sounds of one class and high ones of another, each with a picture beside it."""
    for split, count in {"train": 8, "val": 4, "calibration": 3, "test": 3}.items():
        for name, hz in {"low": 300, "high": 2000}.items():
            for number in range(count):
                place = tmp_path / "data" / split / name / f"{split}{number}.wav"
                place.parent.mkdir(parents=True, exist_ok=True)
                times = np.arange(800) / 16_000
                soundfile.write(place, 0.3 * np.sin(2 * np.pi * (hz + 9 * number) * times), 16_000)
                pixels = np.full((9, 8, 3), 20 * number + len(name), np.uint8)
                Image.fromarray(pixels).save(place.with_suffix(".png"))
    (tmp_path / "network.py").write_text(NETWORK)
    return tmp_path


def trained(folder: Path, data: str, cut: str, function: str) -> tuple[Path, str]:
    (folder / "plan.yaml").write_text(PLAN.replace("DATA", data).replace("CUT", cut))
    run, place = folder / "run", f"{folder / 'network.py'}:{function}"
    train(load_plan(folder / "plan.yaml"), run, backbone_file=place)
    return run, place


def answers(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["run", *map(str, arguments), "--json"])
    return json.loads(result.stdout)


def test_a_run_on_sounds_answers_sound_files_of_another_rate(folder: Path) -> None:
    data = f"{{kind: sound_folder, root: {folder / 'data'}, chain: {CHAIN}}}"
    run, place = trained(folder, data, "1", "heard")
    found = answers(run, folder / "data/test", "--backbone", place)["answers"]
    assert [Path(each["file"]).suffix for each in found] == [".wav"] * 6
    assert {each["class_name"] for each in found} <= {"high", "low"}
    samples, _ = soundfile.read(folder / "data/test/high/test0.wav", dtype="float32")
    assert len(samples) == 800
    opened = open_run(run, backbone_file=place)
    with pytest.raises(DataError, match=r"the sound cannot be read: .* not a sound"):
        opened.run(b"no sound")


def test_a_run_on_pictures_with_sounds_takes_the_sound_beside_a_picture(folder: Path) -> None:
    data = (
        f"{{kind: image_folder, root: {folder / 'data'}, image_size: 8, resize_to: 8, "
        f"sound: {CHAIN}}}"
    )
    run, place = trained(folder, data, "look", "both")
    picture = folder / "data/test/low/test1.png"
    opened = open_run(run, backbone_file=place)
    expected = opened.run((picture, picture.with_suffix(".wav")))
    (found,) = answers(run, picture, "--backbone", place)["answers"]
    assert found["outputs"] == pytest.approx(expected.outputs.tolist())
    picture.with_suffix(".wav").unlink()
    (found,) = answers(run, picture, "--backbone", place)["answers"]
    assert "no sound file beside it, and the model also reads a sound" in found["reason"]
