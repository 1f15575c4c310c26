"""Runs on sounds, alone and beside pictures, from training to new files."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from offramp.cli import app
from offramp.errors import DataError, ExtraError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Promise, find_score
from offramp.run.opened import open_run
from offramp.run.plan import load_plan
from offramp.run.steps import train
from offramp.storage.folder import changing
from offramp.storage.manifest import RUN

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


LEARNING = "cuts: {AV1: {taps: [look, hear]}}"
"""A cut with a side input, which a branch of the plan learns to do without."""


def trained(folder: Path, data: str, cut: str, function: str, cuts: str = "") -> tuple[Path, str]:
    plan = PLAN.replace("DATA", data).replace("CUT", cut) + cuts
    if cuts:
        plan = plan.replace("kernel: 1", "kernel: 1, absent: token")
    (folder / "plan.yaml").write_text(plan)
    run, place = folder / "run", f"{folder / 'network.py'}:{function}"
    train(load_plan(folder / "plan.yaml"), run, backbone_file=place)
    return run, place


def answers(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["run", *map(str, arguments), "--json"])
    return json.loads(result.stdout)


def test_a_run_on_sounds_answers_sound_files_of_another_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(DataError, match=r"the sound cannot be read: it is empty\."):
        opened.run(b"")
    with pytest.raises(DataError, match=r"the sound cannot be read: .*no samples at all\."):
        opened.run(np.zeros(0, np.float32))
    with pytest.raises(DataError, match=r"the sound cannot be read: .* Divide by 32768"):
        opened.run(np.full(400, 12_000, np.float32))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    words = ["run", str(run), str(folder / "data/test"), "--backbone", place]
    for flag in ([], ["--jsonl"]):
        result = CliRunner().invoke(app, [*words, *flag])
        assert isinstance(result.exception, ExtraError)
        assert len(result.stdout.splitlines()) == len(flag)


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


def test_a_picture_whose_sound_is_missing_is_answered_if_asked_for(folder: Path) -> None:
    data = (
        f"{{kind: image_folder, root: {folder / 'data'}, image_size: 8, resize_to: 8, "
        f"sound: {CHAIN}}}"
    )
    run, place = trained(folder, data, "AV1", "both", LEARNING)
    backbone = ("--backbone", place)
    pictures = sorted((folder / "data/test/low").glob("*.png"))
    pictures[1].with_suffix(".wav").unlink()
    pictures[2].with_suffix(".wav").write_bytes(b"no sound")
    refused = answers(run, *pictures, *backbone)
    assert "test1.wav" in refused["answers"][1]["reason"]
    assert "let 'AV1' answer without it: --absent answer" in refused["answers"][1]["reason"]
    found = answers(run, *pictures, *backbone, "--absent", "answer")
    whole, quiet, damaged = found["answers"]
    assert ([found["failed"], refused["failed"]], "error" in damaged) == ([1, 2], True)
    assert (whole["exit"], whole["absent"]) == ("final", [])
    assert (quiet["exit"], quiet["absent"], quiet["promised"]) == ("AV1", ["sound"], False)
    opened = open_run(run, backbone_file=place)
    assert quiet["outputs"] == pytest.approx(opened.run((pictures[1], None)).outputs.tolist())
    words = ["run", str(run), *map(str, pictures), *backbone, "--absent", "answer"]
    table = CliRunner().invoke(app, words).stdout
    assert "1 answered without sound, by the exits that need none\n" in table
    (line,) = [line for line in table.splitlines() if "test1.png" in line]
    assert line.endswith("sound")


def test_a_policy_calibrated_without_the_sound_answers_without_it(folder: Path) -> None:
    data = (
        f"{{kind: image_folder, root: {folder / 'data'}, image_size: 8, resize_to: 8, "
        f"sound: {CHAIN}}}"
    )
    run, place = trained(folder, data, "AV1", "both", LEARNING)
    rows = ExitOutputs.load(run / "outputs/test-without-1.npz")
    promise = Promise(
        goal="max_drop", limit=0.1, confidence=0.9, method="ltt", num_samples=9, estimate=0.0
    )
    policy = ExitPolicy(
        score=find_score("margin"),
        names=tuple(rows.names),
        thresholds=(),
        promise=promise,
        source=rows.source,
    )
    policy.save(folder / "quiet.json")
    pictures = sorted((folder / "data/test/low").glob("*.png"))
    pictures[1].with_suffix(".wav").unlink()
    words = [*map(str, pictures), "--backbone", place, "--policy", str(folder / "quiet.json")]
    found = answers(run, *words)["answers"]
    assert [(each["absent"], each["promised"]) for each in found] == [(["sound"], True)] * 3
    table = CliRunner().invoke(app, ["run", str(run), *words]).stdout
    assert "for samples without sound, whose final exit is AV1" in table
    assert "not covered" not in table
    with changing(run, RUN) as staged:
        policy.save(staged / "policy-without-1.json")
    found = answers(run, *words[:-2], "--absent", "answer")
    assert [each["absent"] for each in found["answers"]] == [[], ["sound"], []]
    assert [each["promised"] for each in found["answers"]] == [False, True, False]
    (used,) = found["policies_without"]
    assert used["file"] == str(run / "policy-without-1.json")
    assert used["policies"] == [policy.as_json()]
    result = CliRunner().invoke(app, ["run", str(run), *words[:-2], "--absent", "answer"])
    assert f"policy of {run / 'policy-without-1.json'}: margin: " in result.stdout
    assert "no policy: the full network answers" in result.stdout
    lines = CliRunner().invoke(app, ["run", str(run), *words[:-2], "--absent", "answer", "--jsonl"])
    assert f"policy of {run / 'policy-without-1.json'}: margin: " in lines.stderr
    assert [json.loads(line)["absent"] for line in lines.stdout.splitlines()][1] == ["sound"]
