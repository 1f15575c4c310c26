"""Runs on pictures that a CSV file lists."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.outputs import ExitOutputs
from offramp.run.plan import load_plan
from offramp.run.steps import evaluate, train

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

NETWORK = """
import torch
from torch import nn

def network(outputs):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, outputs),
    )

def classes():
    return network(3)

def values():
    return network(1)
"""

PLAN = """
backbone: {name: python}
data: {kind: csv, file: FILE, image_size: 12, split: {}, group: site, source: film}
branches: {"1": [{kind: conv, filters: 2, hidden: 5}]}
train: {epochs: 1, batch_size: 16}
evaluate: {timing_repeats: 0, bootstrap_draws: 20}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Pictures that are the brighter the higher their class, two of each film."""
    draw = np.random.default_rng(0)
    lines = ["path,label,brightness,site,film"]
    for index in range(60):
        label, site = index // 2 % 3, "north" if index % 4 < 2 else "south"
        pixels = draw.integers(80 * label, 80 * label + 80, (13, 17, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{label},{pixels.mean() / 255},{site},{index // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "network.py").write_text(NETWORK)
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("FILE", str(tmp_path / "labels.csv")))
    return path


@pytest.mark.parametrize(
    ("function", "settings", "measure"),
    [
        ("classes", [], "accuracy"),
        ("classes", ["data.classes=[dark, grey, bright]"], "accuracy"),
        ("values", ["task=regression", "data.value=brightness"], "mae"),
    ],
)
def test_a_table_of_pictures_gives_a_run_with_groups_and_sources(
    plan: Path, function: str, settings: list[str], measure: str
) -> None:
    name, run = f"{plan.parent / 'network.py'}:{function}", plan.parent / "run"
    result = train(load_plan(plan, settings), run, backbone_file=name)
    assert json.loads((run / "metrics.json").read_text())["comparison"]["measure"] == measure
    outputs = ExitOutputs.load(run / "outputs/calibration.npz")
    assert outputs.groups is not None
    assert {*outputs.groups} == {"north", "south"}
    assert outputs.clusters is not None
    assert len({*outputs.clusters}) == len(outputs.labels) // 2
    assert str(evaluate(run, backbone_file=name).comparison) == str(result.comparison)
