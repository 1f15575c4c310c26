"""`--data file.py:function`: a run on data that a function in a Python file returns."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from offramp.cli import app

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

FILE = """
import numpy as np
from torch import nn

from offramp.data import ImageFolder

def network():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )

SIZES = {"train": 20, "validation": 11, "calibration": 12, "test": 13}

def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        **{n: (rng.normal(size=(k, 3, 8, 7)), rng.integers(0, 3, k)) for n, k in SIZES.items()},
        "target_names": ["ant", "bee", "cow"],
    }

def same():
    return arrays()

def others():
    return arrays(seed=1)

def pictures():
    splits = ImageFolder(root="photos", image_size=(8, 7)).load()
    return splits.named() | {"target_names": splits.target_names}
"""
COUNTING = """
with open("executions", "a") as file:
    file.write("x")
"""
PLAN = """
backbone: {name: python}
data: {kind: python}
branches:
  "1": [{kind: conv, filters: 2, hidden: 3}]
train: {epochs: 1, batch_size: 7}
evaluate: {timing_repeats: 0, bootstrap_draws: 9}
"""


def offramp(*words: str, data: str | None = None) -> Result:
    flags = ["--backbone", "mine.py:network", *(["--data", f"mine.py:{data}"] if data else [])]
    return CliRunner().invoke(app, [*words, *flags])


TRAIN, EVALUATE = ("train", "plan.yaml", "--out", "run"), ("evaluate", "run")
EITHER = pytest.mark.parametrize("words", [TRAIN, EVALUATE], ids=["train", "evaluate"])


def reason(result: Result) -> str:
    return str(result.exception)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of functions, a plan, and a run of both."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.py").write_text(FILE)
    (folder / "plan.yaml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert offramp(*TRAIN, data="arrays").exit_code == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the command line runs."""
    shutil.copytree(trained, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_a_run_on_own_data_counts_its_samples_and_names_its_classes(place: Path) -> None:
    metrics = json.loads((place / "run/metrics.json").read_text())
    assert metrics["samples"] == {"train": 20, "validation": 11, "calibration": 12, "test": 13}
    manifest = json.loads((place / "run/manifest.json").read_text())
    assert manifest["class_names"] == ["ant", "bee", "cow"]


def test_training_again_on_the_same_samples_trains_nothing(place: Path) -> None:
    again = offramp(*TRAIN, data="same")
    assert again.exit_code == 0
    assert "nothing was trained" in again.stderr


def test_evaluating_again_on_the_same_samples_gives_the_same_outputs(place: Path) -> None:
    before = (place / "run/outputs/test.npz").read_bytes()
    (place / "run/outputs/test.npz").unlink()
    assert offramp(*EVALUATE, data="same").exit_code == 0
    assert (place / "run/outputs/test.npz").read_bytes() == before


def test_a_dry_run_reads_the_data_and_writes_nothing(place: Path) -> None:
    result = offramp("train", "plan.yaml", "--out", "new", "--dry-run", "--json", data="arrays")
    assert json.loads(result.stdout)["samples"]["calibration"] == 12
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("words", "executions"),
    [
        (TRAIN, 1),
        (EVALUATE, 1),
        (("train", "plan.yaml", "--out", "new", "--dry-run"), 1),
        (("train", "plan.yaml", "--out", "new"), 1),
        ((*TRAIN, "--set", "train.seeds=[0,1]"), 2),  # the network of the run, and the new one
    ],
    ids=["finished", "evaluate", "dry run", "train", "extend"],
)
def test_a_file_that_gives_network_and_data_is_executed_once(
    place: Path, words: tuple[str, ...], executions: int
) -> None:
    (place / "mine.py").write_text(FILE + COUNTING)
    assert offramp(*words, data="arrays").exit_code == 0
    assert (place / "executions").read_text() == "x" * executions


@EITHER
def test_a_run_on_own_data_asks_for_the_flag_again(place: Path, words: tuple[str, ...]) -> None:
    assert "--data path/to/file.py:function" in reason(offramp(*words))


@EITHER
def test_another_function_with_other_samples_is_refused(
    place: Path, words: tuple[str, ...]
) -> None:
    assert "data of its plan have changed" in reason(offramp(*words, data="others"))


@EITHER
def test_a_function_that_fails_is_named_with_its_error(place: Path, words: tuple[str, ...]) -> None:
    (place / "mine.py").write_text(FILE + "\ndef broken():\n    raise KeyError('labels.csv')\n")
    assert "mine.py:broken failed with KeyError: 'labels.csv'" in reason(
        offramp(*words, data="broken")
    )


def test_the_flag_and_a_plan_that_names_its_data_do_not_go_together(place: Path) -> None:
    words = ("train", "plan.yaml", "--out", "new", "--set", "data.kind=fashion_mnist")
    text = reason(offramp(*words, data="arrays"))
    assert "Leave out --data, or write `data: {kind: python}`" in text


def test_picture_files_are_refused_where_samples_came_prepared(place: Path) -> None:
    text = reason(offramp("run", "run", "photo.png"))
    assert "does not know how to prepare files" in text


def test_picture_files_are_answered_where_samples_carry_their_preprocessing(place: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "calibration", "test"):
        for number, name in enumerate(("ant", "bee", "cow")):
            for index in range(2):
                path = place / "photos" / split / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (9, 8 + number, 3), np.uint8)).save(path)
    assert offramp("train", "plan.yaml", "--out", "new", data="pictures").exit_code == 0
    result = offramp("run", "new", "photos/test/ant/0.png", "--json")
    [answer] = json.loads(result.stdout)["answers"]
    assert answer["class_name"] in ("ant", "bee", "cow")


def test_the_list_of_runs_names_the_function(place: Path) -> None:
    listed = CliRunner().invoke(app, ["runs", str(place), "--json"]).stdout
    [run] = json.loads(listed)["runs"]
    assert run["data"] == "mine.py:arrays"
