"""Runs that estimate a count, through every verb: from a CSV file, and on stand-ins for DISCO."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from offramp.cli import app
from offramp.run.plan import load_plan
from offramp.run.steps import train

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

NETWORK = """
import torch
from torch import nn

class Bright(nn.Module):
    "Counts dots by the sum of their light, after two layers that change nothing of it."
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 48, 1)
        self.top = nn.Linear(48, 1)
        for layer in (self.one, self.two, self.top):
            nn.init.constant_(layer.weight, 1 / layer.weight.shape[1])
            nn.init.zeros_(layer.bias)

    def forward(self, picture):
        light = self.two(self.one(picture).relu()).relu()
        return self.top(light.sum((2, 3))) / 9

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.see, self.hear = nn.Conv2d(3, 4, 3, stride=4), nn.Conv2d(1, 5, 7, stride=8)
        self.map, self.top = nn.Conv2d(4, 5, 3, stride=2), nn.Linear(10, 1)

    def forward(self, picture, sound):
        seen = self.map(self.see(picture).relu()).mean((2, 3))
        heard = self.hear(sound).relu().mean((2, 3))
        return 20 + self.top(torch.cat([seen, heard], 1))

def dots():
    return Bright()

def both():
    return Both()
"""
PLAN = """
task: regression
backbone: {name: python}
data: DATA
branches: BRANCHES
train: {epochs: 2, batch_size: 16, seeds: [0, 1]}
evaluate: {timing_repeats: 1, bootstrap_draws: 20}
"""


def written(folder: Path, data: str, branches: str) -> Path:
    (folder / "network.py").write_text(NETWORK)
    path = folder / "plan.yaml"
    path.write_text(PLAN.replace("DATA", data).replace("BRANCHES", branches))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures of dots, of which a CSV file gives the numbers."""
    folder = tmp_path_factory.mktemp("dots")
    rng, lines = np.random.default_rng(0), ["path,dots,split"]
    for split, number in (("train", 30), ("val", 20), ("calibration", 300), ("test", 60)):
        for index in range(number):
            pixels, count = np.zeros((24, 24, 3), np.uint8), int(rng.integers(0, 9))
            for place in rng.permutation(36)[:count]:
                row, column = 4 * (place // 6), 4 * (place % 6)
                pixels[row : row + 3, column : column + 3] = 255
            Image.fromarray(pixels).save(folder / f"{split}{index}.png")
            lines.append(f"{split}{index}.png,{count},{split}")
    (folder / "dots.csv").write_text("\n".join(lines))
    data = (
        f"{{kind: csv, file: {folder}/dots.csv, value: dots, image_size: [24, 24], "
        "mean: [0, 0, 0], std: [1, 1, 1]}"
    )
    branch = "{kind: conv, filters: 2, hidden: 4, pool: 4, error_predictor: true}"
    plan = load_plan(written(folder, data, f"{{one: [{branch}]}}"))
    train(plan, folder / "run", backbone_file=f"{folder}/network.py:dots")
    return folder / "run"


def told(*words: str | Path) -> str:
    found = CliRunner().invoke(app, [*map(str, words)])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_tables_of_a_run_name_mae_rmse_and_the_unit(run: Path) -> None:
    for text in (
        told("tradeoff", run),
        told("evaluate", run, "--backbone", f"{run.parent}/network.py:dots"),
        (run / "report.html").read_text(),
    ):
        assert "MAE (dots)" in text
        assert "RMSE (dots)" in text
        assert "often call MSE" in text
        assert "accuracy" not in text.lower()
    page = (run / "report.html").read_text()
    assert "The final layer&#x27;s MAE (dots) is 0.000." in page
    assert "dots in training</" in page
    assert "0 to 8, median" in page
    assert "exit&#x27;s MAE (dots) of 0.000" in page
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["comparison"]["measure"] == "mae"
    assert metrics["exits"]["exits"][-1]["rmse"] == pytest.approx(0, abs=1e-5)
    assert "MAE (dots)" in told("runs", run.parent)


def test_policies_of_a_run_are_calibrated_simulated_and_used(run: Path) -> None:
    shutil.copytree(run, run.parent / "copy")
    run = run.parent / "copy"
    text = told("calibrate", run, "--budget", "200000")
    assert "given: " in text
    assert "rise of MAE (dots)" in text
    text = told("calibrate", run, "--max-rise", "7", "--loss-bound", "8")
    assert "the mean absolute error (dots) rises by at most 7" in text
    assert "RMSE (dots)" in text
    text = told("simulate", run, "--rate", "5", "--deadline-ms", "900", "--requests", "50")
    assert "MAE (dots)" in text
    assert "counts as an answer with the median of the labels" in text
    picture, network = run.parent / "test0.png", f"{run.parent}/network.py:dots"
    text = told("run", run, picture, "--backbone", network)
    assert "answer (dots)" in text
    assert "the mean absolute error (dots)" in text
    stream = run.parent / "stream.txt"
    stream.write_text("0\n" * 30)
    assert "Watch for drift" in told("watch", run, "--stream", stream)


def test_a_crowd_that_is_seen_and_heard_gives_a_run(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    from stand_ins.disco import write  # it needs soundfile

    write(tmp_path / "disco", 24, seed=0, size=(40, 64))
    data = f"{{kind: disco, root: {tmp_path}/disco, image_size: [40, 64], calibration: 6}}"
    path = written(tmp_path, data, "{see: [{kind: conv, filters: 2, hidden: 4}]}")
    network = f"{tmp_path}/network.py:both"
    result = train(load_plan(path), tmp_path / "run", backbone_file=network)
    text = str(result)
    assert "MAE (people)" in text
    assert "RMSE (people)" in text
    assert "stand-in files" in text
    assert "6 calibration" in (tmp_path / "run/report.html").read_text()
    for ending, folder in ((".jpg", "imgs"), (".wav", "auds")):
        shutil.copy(tmp_path / f"disco/{folder}/test_0000{ending}", tmp_path / f"new{ending}")
    text = told("run", tmp_path / "run", tmp_path / "new.jpg", "--backbone", network)
    assert "answer (people)" in text
    changed = load_plan(path, ["data.degrade={brightness: 0.2, noise: 25}"])
    worse = train(changed, tmp_path / "worse", backbone_file=network)
    assert worse.comparison.final.value != result.comparison.final.value
    assert worse.data_keys != result.data_keys
