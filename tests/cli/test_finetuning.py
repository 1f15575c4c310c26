"""`offramp finetune`: a network of one's own, on data of one's own, from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from offramp.cli import app

FILE = """
import numpy as np
from torch import nn

def network():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(150, 7))

def data():
    rng = np.random.default_rng(0)
    sizes = {"train": 20, "validation": 11, "calibration": 12, "test": 13}
    return {n: (rng.normal(size=(k, 3, 8, 7)), rng.integers(0, 3, k)) for n, k in sizes.items()}
"""
PLAN = """
backbone: {name: python}
data: {kind: python}
train: {epochs: 2, batch_size: 7}
"""
FLAGS = ("--backbone", "mine.py:network", "--data", "mine.py:data")


def offramp(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "plan.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_result_names_the_folder_as_a_plan_does(place: Path) -> None:
    done = offramp("finetune", "plan.yaml", *FLAGS)
    assert done.exit_code == 0
    assert 'backbone: {name: "python", weights: runs/plan}' in done.stdout
    assert "finetuning: 40/40" in done.stderr
    assert (place / "runs/plan/model.safetensors").exists()


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(place: Path) -> None:
    words = ("finetune", "plan.yaml", *FLAGS, "--dry-run")
    told = offramp(*words)
    assert "3 of 3 layers" in told.stdout  # a new top of two in place of the last
    assert "nothing was trained or written" in told.stderr
    content = json.loads(offramp(*words, "--json", "--quiet").stdout)
    assert content["samples"] == {"train": 20, "validation": 11, "calibration": 12, "test": 13}
    assert {path.name for path in place.iterdir()} == {"mine.py", "plan.yaml"}


def test_a_file_that_gives_network_and_data_is_executed_once(place: Path) -> None:
    counting = 'with open("executions", "a") as file:\n    file.write("x")\n'
    (place / "mine.py").write_text(FILE + counting)
    assert offramp("finetune", "plan.yaml", *FLAGS, "--set", "train.epochs=1").exit_code == 0
    assert (place / "executions").read_text() == "x"


def test_json_is_one_document_and_quiet_says_nothing_else() -> None:
    done = offramp("finetune", "plan.yaml", *FLAGS, "--set", "train.epochs=1", "--json", "--quiet")
    content = json.loads(done.stdout)
    assert (content["num_outputs"], content["measure"]) == (3, "accuracy")
    assert len(content["history"]["train"]) == 1
    assert done.stderr == ""


def test_all_mistakes_of_a_plan_are_listed(place: Path) -> None:
    (place / "plan.yaml").write_text(f"{PLAN}trains: norms\nbranches: {{}}\n")
    text = str(offramp("finetune", "plan.yaml", "--set", "train.lr=-1").exception)
    assert all(part in text for part in ("3 mistakes", "trains:", "branches:", "train.lr:"))


def test_ctrl_c_says_that_it_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("offramp.run.finetune_stages.run_epochs", stop)
    done = offramp("finetune", "plan.yaml", *FLAGS)
    assert done.exit_code == 130
    assert "repeat the same command and it resumes" in done.stderr
