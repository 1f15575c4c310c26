"""Runs on a published data set: no calibration samples, and files that stand in for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from offramp.cli import app
from offramp.data.published import MARK
from offramp.doubts import STAND_IN_DOUBT, DoubtWarning
from offramp.outputs import ExitOutputs
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetuning import FinetuneResult, finetune
from offramp.run.forecast import forecast_run
from offramp.run.listing import list_runs
from offramp.run.plan import load_plan
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10),
    )
"""
PLAN = """
backbone: {name: python}
data: {kind: cifar10, root: ROOT, image_size: 12, limit: 30}
branches: {"1": [{kind: conv, filters: 2, hidden: 5}]}
train: {epochs: 1, batch_size: 16}
evaluate: {timing_repeats: 0, bootstrap_draws: 20}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "cifar-10-batches-bin"
    data.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = rng.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] = np.arange(20) % 10
        (data / f"{name}.bin").write_bytes(records.tobytes())
    (data / "batches.meta.txt").write_text("\n".join(map(str, range(10))))
    (tmp_path / MARK).touch()
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "plan.yaml").write_text(PLAN.replace("ROOT", str(tmp_path)))
    return tmp_path


def test_a_run_without_calibration_samples_has_everything_but_calibrated_policies(
    folder: Path,
) -> None:
    plan, place, run = (
        load_plan(folder / "plan.yaml"),
        f"{folder}/network.py:network",
        folder / "run",
    )
    expected = forecast_run(plan, run, backbone_file=place).samples
    assert expected == {"train": 30, "validation": 25, "test": 20}
    result = train(plan, run, backbone_file=place)
    assert sorted(path.name for path in (run / "outputs").iterdir()) == [
        "rivals.npz",
        "test.npz",
        "trials.npz",
        "validation.npz",
    ]
    assert str(load_result(run, place).comparison) == str(result.comparison)
    assert str(evaluate(run, backbone_file=place).comparison) == str(result.comparison)
    shown = CliRunner().invoke(app, ["calibrate", str(run), "--max-drop", "0.5"])
    assert "its data has no calibration split" in str(shown.exception)


def test_what_is_measured_on_stand_in_files_says_so(folder: Path) -> None:
    train(
        load_plan(folder / "plan.yaml"),
        folder / "run",
        backbone_file=f"{folder}/network.py:network",
    )
    warnings = json.loads((folder / "run/metrics.json").read_text())["warnings"]
    assert any("stand-in files" in each for each in warnings)
    assert "stand-in files" in (folder / "run/report.html").read_text()
    assert list_runs(folder).runs[0].warnings == tuple(warnings)
    assert "(stand-in files)" in str(list_runs(folder))


def finetuned(folder: Path) -> FinetuneResult:
    """The network finetuned on the data of the folder's plan."""
    data = load_plan(folder / "plan.yaml").data
    settings = {"backbone": {"name": "python"}, "data": data, "train": {"epochs": 1}}
    plan, place = FinetunePlan.model_validate(settings), f"{folder}/network.py:network"
    return finetune(plan, folder / "backbone", backbone_file=place)


def test_what_is_finetuned_on_stand_in_files_says_so(folder: Path) -> None:
    result = finetuned(folder)
    assert STAND_IN_DOUBT in result.warnings
    assert f"Warning: {STAND_IN_DOUBT}" in str(result)
    assert str(finetuned(folder)) == str(result)  # as read from the finished folder
    manifest = json.loads((folder / "backbone/manifest.json").read_text())
    assert STAND_IN_DOUBT in manifest["result"]["warnings"]
    [listed] = list_runs(folder).runs
    assert listed.warnings == result.warnings
    assert "% at final (stand-in files)" in str(list_runs(folder))


def test_a_plan_trains_on_tiny_imagenet_and_tests_on_its_validation_pictures(folder: Path) -> None:
    tiny_imagenet = pytest.importorskip("stand_ins.tiny_imagenet")
    tiny_imagenet.write(folder / "tiny", 8, seed=0)
    text = (folder / "plan.yaml").read_text().split("\n")
    text[2] = f"data: {{kind: tiny_imagenet, root: {folder}/tiny, image_size: 12}}"
    (folder / "plan.yaml").write_text("\n".join(text))
    (folder / "network.py").write_text(NETWORK.replace("Linear(5, 10)", "Linear(5, 3)"))
    place = f"{folder}/network.py:network"
    train(load_plan(folder / "plan.yaml"), folder / "run", backbone_file=place)
    outputs = {
        name: ExitOutputs.load(folder / f"run/outputs/{name}.npz")
        for name in ("validation", "calibration", "test")
    }
    assert {name: len(each.labels) for name, each in outputs.items()} == {
        "validation": 6,
        "calibration": 12,
        "test": 6,
    }
    ids = outputs["test"].ids
    assert ids is not None
    assert all(str(name).startswith("val/images/") for name in ids)


def test_a_leak_between_splits_stays_with_what_is_measured_on_them(folder: Path) -> None:
    leaking(folder)
    place = f"{folder}/network.py:network"
    with pytest.warns(DoubtWarning, match="drawn by segment"):
        result = train(load_plan(folder / "plan.yaml"), folder / "run", backbone_file=place)
    assert "Warning: sources that are also in train: " in str(result)
    warnings = json.loads((folder / "run/metrics.json").read_text())["warnings"]
    assert any("`split_by: track` uses the published split" in each for each in warnings)
    assert "`split_by: track`" in (folder / "run/report.html").read_text()
    outputs = ExitOutputs.load(folder / "run/outputs/test.npz")
    tracks = {*map(str, np.asarray(outputs.clusters))}
    assert len(tracks) < len(outputs.labels) == 75
    assert all(len(track.split(".")) == 2 for track in tracks)


def test_a_leak_stays_with_a_finetuned_backbone_too(folder: Path) -> None:
    leaking(folder)
    with pytest.warns(DoubtWarning, match="drawn by segment"):
        result = finetuned(folder)
    assert "Warning: sources that are also in train: " in str(result)
    [listed] = list_runs(folder).runs
    assert any("`split_by: track` uses the published split" in each for each in listed.warnings)


def leaking(folder: Path) -> None:
    """Change the folder's plan to music whose tracks have segments in several splits."""
    pytest.importorskip("soundfile")
    from stand_ins.gtzan import write  # it needs soundfile

    write(folder / "music", 1, seed=0, samples=395, rate=800)
    chain = (
        "{rate: 800, num_samples: 40, repeat: 3, height: 12, width: 12, "
        "channels: [{window: 20, step: 5, fft: 32}]}"
    )
    text = (folder / "plan.yaml").read_text().split("\n")
    text[2] = f"data: {{kind: gtzan, root: {folder}/music, chain: {chain}}}"
    (folder / "plan.yaml").write_text("\n".join(text))
