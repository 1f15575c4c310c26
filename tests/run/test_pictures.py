"""Runs on picture files that are not three channels in a square."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.data.splits import SPLIT_NAMES
from offramp.multiexit.model import MultiExit
from offramp.preprocess import ImagePreprocess
from offramp.run.plan import Plan
from offramp.run.prepare import prepare_run
from offramp.run.steps import train

NETWORK = """
import torch
from torch import nn

def grey():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    draw = np.random.default_rng(0)
    for split in SPLIT_NAMES:
        for name in ("ant", "bee"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(6):
                pixels = draw.integers(0, 200 + 50 * (name == "bee"), (19, 23, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.tif")
    data = {"kind": "image_folder", "root": str(tmp_path / "photos"), "image_size": [12, 16]}
    grey = {"channels": 1, "mean": [0.4], "std": [0.2], "exif": False}
    return Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": data | grey,
            "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 5}]},
            "train": {"epochs": 1},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20, "rival_sizes": [9]},
        }
    )


@pytest.fixture
def network(tmp_path: Path) -> str:
    (tmp_path / "network.py").write_text(NETWORK)
    return f"{tmp_path / 'network.py'}:grey"


def test_a_network_for_grey_pictures_is_cut_for_their_height_and_width(
    plan: Plan, network: str
) -> None:
    prepared = prepare_run(plan, network)
    assert prepared.backbone.input_shapes == ((1, 12, 16),)
    assert prepared.info.inputs == plan.data.inputs


@pytest.mark.slow
def test_a_network_for_grey_pictures_that_are_not_square_gets_a_run(
    plan: Plan, network: str, tmp_path: Path
) -> None:
    result = train(plan, tmp_path / "run", backbone_file=network)
    [rival] = json.loads((tmp_path / "run/metrics.json").read_text())["rivals"]
    assert (rival["name"], rival["resolution"]) == ("9 px", 9)
    assert rival["flops"] < sum(result.model.exit_stage_flops())
    again = MultiExit.load(tmp_path / "run", backbone=result.model.backbone.original)
    assert again.info.inputs == plan.data.inputs


def test_a_run_prepares_new_pictures_as_its_data_was_prepared(plan: Plan, tmp_path: Path) -> None:
    [inputs] = plan.data.inputs
    stored = json.loads(json.dumps(inputs.model_dump(mode="json")))
    held = io.BytesIO()
    with Image.open(tmp_path / "photos/test/ant/0.tif") as picture:
        picture.save(held, "TIFF")
    values, _ = plan.data.load(check=False).test[0]
    prepared = ImagePreprocess.model_validate(stored)(held.getvalue())
    np.testing.assert_array_equal(values.numpy(), prepared)
