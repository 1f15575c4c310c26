"""Runs of networks that do not name classes of one picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from offramp.data import Splits, as_samples
from offramp.doubts import DoubtWarning
from offramp.errors import PlanError, ShapeError
from offramp.run.plan import Plan
from offramp.run.results import RunResult
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result

NETWORK = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.left = nn.Conv2d(2, 5, 3, padding=1)
        self.right = nn.Conv2d(1, 5, 3, padding=1)
        self.both = nn.Conv2d(5, 7, 3)
        self.top = nn.Linear(7, outputs)

    def forward(self, left, right):
        return self.top(self.both((self.left(left) + self.right(right)).relu()).mean((2, 3)))

def values():
    torch.manual_seed(0)
    return Two(1)

def classes():
    torch.manual_seed(0)
    return Two(3)
"""


def plan(task: str, **evaluate: object) -> Plan:
    return Plan.model_validate(
        {
            "task": task,
            "backbone": {"name": "python"},
            "data": {"kind": "fashion_mnist"},
            "branches": {"left": [{"kind": "conv", "filters": 2}]},
            "train": {"lr": 1e-3, "seeds": [0, 1], "epochs": 2, "batch_size": 16},
            "evaluate": {"timing_repeats": 1, "bootstrap_draws": 20, **evaluate},
        }
    )


def splits(task: str) -> Splits:
    rng = np.random.default_rng(1)
    parts = {}
    for name, count in (("train", 40), ("validation", 21), ("calibration", 22), ("test", 23)):
        left, right = (rng.normal(size=(count, c, 8, 6)).astype(np.float32) for c in (2, 1))
        values = left.mean((1, 2, 3))
        classes = rng.integers(0, 3, count)
        labels = values if task == "regression" else classes
        parts[name] = as_samples(((left, right), labels))
    names = () if task == "regression" else ("ant", "bee", "cow")
    return Splits.of(parts, target_names=names, task=task)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "function"), [("regression", "values"), ("classification", "classes")]
)
def test_a_network_of_two_inputs_is_trained_evaluated_and_reported(
    tmp_path: Path, file: Path, task: str, function: str
) -> None:
    data, name = splits(task), f"{file}:{function}"
    wanted = plan(task, rival_sizes=[4])
    result = train(wanted, tmp_path / "run", splits=data, backbone_file=name)
    check(result, task)
    assert f"Early exits on network.py:{function}" in (tmp_path / "run/report.html").read_text()
    read = train(wanted, tmp_path / "run", splits=data, backbone_file=name)
    assert str(read) == str(result)
    again = evaluate(tmp_path / "run", splits=data, backbone_file=name)
    assert [row.value for row in again.comparison.rows] == [
        row.value for row in result.comparison.rows
    ]


def test_warnings_are_in_result_metrics_and_report(tmp_path: Path, file: Path) -> None:
    data, name = splits("classification"), f"{file}:classes"
    wanted = plan("classification", timing_repeats=0)
    with pytest.warns(DoubtWarning, match="before training, on 21 validation samples: the final"):
        result = train(wanted, tmp_path / "run", splits=data, backbone_file=name)
    [doubt] = result.doubts
    assert doubt.startswith("the final exit hardly does better than guessing")
    assert f"Warning: {doubt}" in str(result)
    assert load_result(tmp_path / "run", name).as_json()["warnings"] == [doubt]
    page = (tmp_path / "run/report.html").read_text()
    assert "the final exit hardly does better" in page
    assert "training samples by class</" in page


def check(result: RunResult, task: str) -> None:
    measure = "mae" if task == "regression" else "accuracy"
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["comparison"]["measure"] == measure
    assert metrics["notes"][0].startswith("Static rivals were skipped")
    assert "Static rivals were skipped" in str(result)
    page = (result.folder / "report.html").read_text()
    assert "Static rivals were skipped" in page
    assert "left" in str(result)
    best = "lowest validation MAE" if task == "regression" else "highest validation accuracy"
    assert f"the one with the {best} at each cut (ties go to the lower loss): " in str(result)


def test_a_network_that_does_not_fit_the_task_is_refused_before_work(
    tmp_path: Path, file: Path
) -> None:
    with pytest.raises(ShapeError, match="regression needs"):
        train(
            plan("regression"),
            tmp_path / "run",
            splits=splits("regression"),
            backbone_file=f"{file}:classes",
        )
    assert not (tmp_path / "run" / "plan.yaml").exists()


def test_data_of_another_task_is_refused_with_the_task_to_set(tmp_path: Path, file: Path) -> None:
    data = splits("regression")
    with pytest.raises(PlanError, match=r"data is for regression\. Set `task: regression`"):
        train(plan("classification"), tmp_path, splits=data, backbone_file=f"{file}:values")


def test_the_model_of_a_regression_is_read_with_its_task(tmp_path: Path, file: Path) -> None:
    name = f"{file}:values"
    train(plan("regression"), tmp_path / "run", splits=splits("regression"), backbone_file=name)
    result = load_result(tmp_path / "run", name)
    assert result.model.task == "regression"
    assert "the one with the lowest validation MAE at each cut" in str(result)


def test_a_plan_of_another_task_than_its_data_is_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(PlanError, match="task is classification, but its data is for regression"):
        train(
            plan("classification"),
            tmp_path / "run",
            splits=splits("regression"),
            backbone_file=f"{file}:classes",
        )
