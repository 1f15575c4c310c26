"""A run names its data from any working directory, and finds it again where it has moved to."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError
from offramp.run.plan import Plan, load_plan
from offramp.run.steps import evaluate, train

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
"""
KINDS = {
    "image_folder": {"kind": "image_folder", "root": "photos", "image_size": 9},
    "csv": {"kind": "csv", "file": "photos/all.csv", "image_size": 9},
}
EACH_KIND = pytest.mark.parametrize("kind", list(KINDS))


def plan(kind: str = "image_folder", seeds: tuple[int, ...] = (0,), **data: Any) -> Plan:
    return Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": KINDS[kind] | data,
            "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 3}]},
            "train": {"epochs": 1, "batch_size": 3, "seeds": seeds},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 9},
        }
    )


def draw(photos: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    rows = [["path", "label", "split"]]
    for split in SPLIT_NAMES:
        for name in ("ant", "bee"):
            (photos / split / name).mkdir(parents=True)
            for index in range(2):
                rows.append([f"{split}/{name}/{index}.png", name, split])
                pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(photos / rows[-1][0])
    with (photos / "all.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and, for each kind of data, a run that names them relative to it."""
    place = tmp_path_factory.mktemp("made")
    draw(place / "photos")
    (place / "network.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind in KINDS:
            train(plan(kind), kind, backbone_file="network.py:network")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs, without their pictures; the working directory is another one."""
    for kind in KINDS:
        shutil.copytree(made / kind, tmp_path / "place" / kind)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "place"


@pytest.fixture
def moved(made: Path, place: Path) -> Iterator[Path]:
    """Where the pictures have moved to; afterwards they are put back for the next test."""
    shutil.move(made / "photos", place / "moved")
    yield place / "moved"
    shutil.move(place / "moved", made / "photos")


@pytest.fixture
def network(made: Path) -> str:
    return f"{made / 'network.py'}:network"


@EACH_KIND
def test_a_run_is_evaluated_from_another_working_directory(
    kind: str, place: Path, network: str
) -> None:
    before = (place / kind / "outputs/test.npz").read_bytes()
    evaluate(place / kind, backbone_file=network)
    assert (place / kind / "outputs/test.npz").read_bytes() == before


@EACH_KIND
def test_data_that_is_gone_is_named_with_the_way_to_say_where_it_is(
    kind: str, place: Path, moved: Path, network: str
) -> None:
    with pytest.raises(DataError, match=r"/photos.* is missing .*--data-root"):
        evaluate(place / kind, backbone_file=network)


@EACH_KIND
def test_moved_data_is_found_by_its_root_and_remembered(
    kind: str, place: Path, moved: Path, network: str
) -> None:
    evaluate(place / kind, backbone_file=network, data_root=moved)
    manifest = json.loads((place / kind / "manifest.json").read_bytes())["plan"]
    written = yaml.safe_load((place / kind / "plan.yaml").read_text())
    assert manifest["data"] == written["data"]
    assert written["data"]["root"] == str(moved)
    evaluate(place / kind, backbone_file=network)


@EACH_KIND
def test_training_again_where_the_data_has_moved_trains_nothing_and_remembers(
    kind: str, place: Path, moved: Path, network: str
) -> None:
    result = train(plan(kind), place / kind, backbone_file=network, data_root=moved)
    assert result.work_done.startswith("nothing was trained")
    assert result.plan.data == load_plan(place / kind / "plan.yaml").data
    evaluate(place / kind, backbone_file=network)


def test_a_run_is_extended_where_its_data_has_moved(place: Path, moved: Path, network: str) -> None:
    bigger = plan(seeds=(0, 1), root=str(moved))
    result = train(bigger, place / "image_folder", backbone_file=network)
    assert result.work_done == "1 branch trained, 1 kept from the earlier run"


@pytest.mark.parametrize("verb", [train, evaluate])
def test_other_data_at_the_new_root_is_refused(
    verb: Any, place: Path, network: str, tmp_path: Path
) -> None:
    draw(tmp_path / "others", seed=1)
    words = (plan(),) if verb is train else ()
    with pytest.raises(DataError, match="train, validation, calibration, test data"):
        verb(*words, place / "image_folder", backbone_file=network, data_root=tmp_path / "others")


def test_the_root_in_the_plan_file_of_a_run_counts(
    made: Path, place: Path, moved: Path, network: str
) -> None:
    path = place / "image_folder/plan.yaml"
    path.write_text(path.read_text().replace(str(made / "photos"), str(moved)))
    evaluate(place / "image_folder", backbone_file=network)


def test_an_interrupted_run_resumes_where_its_data_has_moved(
    made: Path, network: str, tmp_path: Path
) -> None:
    def stop(work: str, done: int, total: int) -> None:
        if "outputs" in work or "answers" in work:
            raise KeyboardInterrupt

    out, words = tmp_path / "stopped", dict[str, Any](backbone_file=network)
    with pytest.raises(KeyboardInterrupt):
        train(plan(root=str(made / "photos")), out, progress=stop, **words)
    states = {path: path.stat().st_mtime_ns for path in (out / "work/state").iterdir()}
    shutil.copytree(made / "photos", tmp_path / "copy")
    resumed = train(plan(root=str(tmp_path / "copy")), out, **words)
    assert {path: path.stat().st_mtime_ns for path in states} == states
    assert resumed.plan == load_plan(out / "plan.yaml")
    whole = train(plan(root=str(made / "photos")), tmp_path / "whole", **words)
    assert resumed.model.digest() == whole.model.digest()


def offramp(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_the_verbs_take_the_root_as_a_flag(place: Path, moved: Path, network: str) -> None:
    flags = ("--backbone", network, "--data-root", str(moved))
    (place / "plan.yaml").write_text(plan(root="/nowhere").to_yaml())
    train_new = ("train", str(place / "plan.yaml"), "--out", str(place / "new"))
    foreseen = offramp(*train_new, *flags, "--dry-run", "--json")
    assert json.loads(foreseen.stdout)["samples"]["train"] == 4
    assert offramp(*train_new, *flags).exit_code == 0
    assert offramp("evaluate", str(place / "image_folder"), *flags).exit_code == 0
