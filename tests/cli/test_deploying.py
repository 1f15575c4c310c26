"""`offramp export`, and `offramp run` with a bundle."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.policy import PromiseWarning
from offramp.run.plan import Plan
from offramp.run.steps import train
from offramp.runtime.runtime import Runtime

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 64, 3), nn.ReLU(),
        nn.Conv2d(64, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its network and pictures, and a bundle of it."""
    root = tmp_path_factory.mktemp("place")
    for split in ("train", "validation", "calibration", "test"):
        for number, kind in enumerate(("ant", "bee")):
            for index in range(3):
                path = root / "photos" / split / kind / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw = np.random.default_rng(10 * number + index)
                Image.fromarray(draw.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
    (root / "network.py").write_text(NETWORK)
    plan = Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "image_folder", "root": str(root / "photos"), "image_size": 9},
            "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 3}]},
            "train": {"epochs": 1, "batch_size": 3, "seeds": [0]},
            "evaluate": {"rival_sizes": [7], "timing_repeats": 0, "bootstrap_draws": 9},
        }
    )
    backbone = f"{root / 'network.py'}:network"
    train(plan, root / "run", backbone_file=backbone)
    done = typed(["export", root / "run", root / "bundle", "--backbone", backbone])
    assert done.exit_code == 0, done.output
    assert "2 stages and 1 branch" in done.stdout
    return root


def typed(words: list[object]) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_card_names_exits_accuracy_difference_and_times(place: Path) -> None:
    card = (place / "bundle/README.md").read_text()
    assert "| exit | branch | MFLOPs | accuracy % | ms |" in card
    assert "at most" in card
    assert "6 real samples" in card


def test_a_bundle_answers_files_by_a_deadline(place: Path) -> None:
    done = typed(
        ["run", place / "bundle", place / "photos/test", "--deadline-ms", 60_000, "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [each["exit"] for each in found["answers"]] == ["final"] * 6
    with Runtime(place / "bundle") as runtime:
        answer = runtime.run(place / "photos/test/ant/0.png")
    assert found["answers"][0]["class_name"] == answer.class_name
    np.testing.assert_allclose(found["answers"][0]["outputs"], answer.outputs, atol=1e-6)


def test_a_deadline_that_is_too_short_is_an_error_of_each_file(place: Path) -> None:
    done = typed(["run", place / "bundle", place / "photos/test", "--deadline-ms", 1e-4])
    assert done.exit_code == 1
    assert "6 files, 6 not answered" in done.stdout


def test_run_says_which_engine_it_measured_as_the_fastest(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = place / "photos/test/ant/0.png"
    with caplog.at_level("INFO", "offramp"):
        done = typed(["run", place / "bundle", picture, "--engine", "auto", "--json"])
    assert done.exit_code == 0, done.output
    assert "is the fastest engine here in fp32" in caplog.text


def test_bench_prints_a_verdict_and_draws_what_it_measured(place: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bench.svg"
    words = ["bench", place / "bundle", "--no-cold", "--repeats", 3, "--batch", 2, "--batch", 3]
    done = typed([*words, "--json", "--plot", picture])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["name"] for row in found["exits"]] == ["1", "final"]
    assert [row["batch"] for row in found["throughput"]] == [2, 3]
    assert found["verdict"]["sentence"].startswith("exits ")
    metrics = json.loads((place / "run/metrics.json").read_text())
    assert [(row["name"], row["value"]) for row in found["static"]] == [
        (row["name"], row["value"]) for row in metrics["comparison"]["rivals"]
    ]
    assert found["static"][0]["name"] == "7 px"
    assert all(row["value"] is not None for row in found["exits"])
    assert picture.read_text().startswith("<?xml")


def test_bench_says_that_a_run_is_no_bundle(place: Path) -> None:
    done = typed(["bench", place / "run"])
    assert done.exit_code == 1
    assert "reads 'offramp bundle 1'" in str(done.exception)


def test_bench_refuses_a_picture_of_another_kind_before_it_measures(place: Path) -> None:
    done = typed(["bench", place / "bundle", "--plot", "bench.gif"])
    assert done.exit_code == 2
    assert "neither .png nor .svg" in done.output


@pytest.mark.parametrize(
    ("folder", "option", "text"),
    [
        ("run", ["--deadline-ms", 5, "--backbone", "network.py:network"], "Export it first"),
        ("run", ["--engine", "openvino"], "are for a bundle"),
        ("bundle", ["--device", "cuda"], "are for a run"),
        ("bundle", ["--engine", "tensorrt"], "tensorrt"),
    ],
)
def test_options_of_the_other_kind_of_folder_are_refused(
    place: Path, folder: str, option: list[object], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = typed(["run", folder, "photos/test", *option])
    assert done.exit_code in (1, 2)
    assert text in done.output + str(done.exception)


def draw_classes(root: Path, split: str, number: int) -> None:
    for kind, level in (("ant", 60), ("bee", 190)):
        for index in range(number):
            draw = np.random.default_rng(1000 * level + index)
            path = root / split / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(draw.normal(level, 9, (9, 11, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)


def test_a_promise_is_made_on_the_answers_of_the_bundle_itself(place: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(place / "bundle", bundle)
    refused = typed(["calibrate", bundle, "--max-disagreement", 0.9])
    assert refused.exit_code == 1
    assert f"offramp evaluate {bundle} --data" in str(refused.exception)
    draw_classes(tmp_path / "photos", "calibration", 40)
    draw_classes(tmp_path / "photos", "test", 5)
    done = typed(["evaluate", bundle, "--data", tmp_path / "photos"])
    assert done.exit_code == 0, done.output
    done = typed(["calibrate", bundle, "--max-disagreement", 0.9])
    assert done.exit_code == 0, done.output
    assert "measured on the 10" in " ".join(done.stdout.split())
    assert "disagree with the final exit" in (bundle / "README.md").read_text()
    assert typed(["tradeoff", bundle]).exit_code == 0
    done = typed(["simulate", bundle, "--rate", 10, "--deadline-ms", 50, "--requests", 50])
    assert done.exit_code == 0, done.output
    done = typed(["run", bundle, tmp_path / "photos/test", "--json"])
    assert {each["promised"] for each in json.loads(done.stdout)["answers"]} == {True}
    with Runtime(bundle, engine="openvino") as runtime, pytest.warns(PromiseWarning):
        assert not runtime.run(tmp_path / "photos/test/ant/0.png").promised
