"""A run whose sound may be absent."""

from pathlib import Path

import numpy as np
import pytest
import torch

from offramp.data import Splits, as_samples
from offramp.errors import DataError
from offramp.outputs import ExitOutputs
from offramp.run.opened import open_run
from offramp.run.plan import Plan
from offramp.run.results import RunResult
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result

pytestmark = pytest.mark.slow  # whole runs, which take some seconds each

NETWORK = """
import torch
from torch import nn

class Both(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 4, 3, stride=2)
        self.hear = nn.Linear(7, 4)
        self.answer = nn.Linear(4, 2)

    def forward(self, picture, sound):
        heard = self.hear(sound)
        return self.answer(self.look(picture).mean((2, 3)) + heard)

def both():
    return Both()
"""
COUNTS = {"train": 24, "validation": 12, "calibration": 9, "test": 11}
PLAN = Plan.model_validate(
    {
        "backbone": {"name": "python"},
        "data": {"kind": "python"},
        "cuts": {"AV1": {"taps": ["look", "hear"]}},
        "branches": {
            "AV1": [{"kind": "conv", "filters": 2, "hidden": 5, "kernel": 1, "absent": "token"}]
        },
        "train": {"epochs": 1, "batch_size": 8},
        "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
    }
)


def splits(quiet: str = "") -> Splits:
    """The samples; every fourth of one split has no sound."""
    drawn = torch.Generator().manual_seed(0)
    parts = {}
    for name, count in COUNTS.items():
        items = []
        for row in range(count):
            picture, sound = (torch.randn(s, generator=drawn) for s in ((3, 9, 8), (7,)))
            items.append(((picture, None if name == quiet and row % 4 == 1 else sound), row % 2))
        parts[name] = as_samples(items)
    return Splits.of(parts, target_names=("no", "yes"))


@pytest.fixture
def network(tmp_path: Path) -> str:
    (tmp_path / "network.py").write_text(NETWORK)
    return f"{tmp_path / 'network.py'}:both"


def test_a_run_reports_its_exits_with_and_without_a_sound(network: str, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def check(result: RunResult) -> None:
        assert result.absence is not None
        assert [(row.absent, row.exit) for row in result.absence] == [
            ("sound", "AV1"),
            ("sound", "final"),
        ]
        assert [row.without is None for row in result.absence] == [False, True]
        assert "Where an input is absent" in str(result)

    trained = train(PLAN, run, splits=splits("train"), backbone_file=network)
    check(trained)
    kept = ExitOutputs.load(run / "outputs/test-without-1.npz")
    calibration = ExitOutputs.load(run / "outputs/calibration-without-1.npz")
    assert (calibration.names, len(calibration.labels)) == (("AV1",), COUNTS["calibration"])
    alone = trained.model.collect(splits().test, without="sound", split="test, no sound")
    np.testing.assert_allclose(kept.outputs, alone.outputs, rtol=1e-5, atol=1e-6)
    assert "<h2>Where an input is absent</h2>" in (run / "report.html").read_text()
    check(load_result(run, network))
    opened, picture = open_run(run, backbone_file=network), np.zeros((3, 9, 8), np.float32)
    answer = opened.run((picture, None))
    assert (answer.exit, answer.absent) == ("AV1", ("sound",))
    check(evaluate(run, splits=splits("train"), backbone_file=network))


@pytest.mark.parametrize("part", ["validation", "calibration", "test"])
def test_samples_that_the_final_exit_cannot_answer_are_refused_before_training(
    network: str, tmp_path: Path, part: str
) -> None:
    text = rf"3 of \d+ {part} samples, such as sample 1, lack input 1 \('sound'\), but every exit"
    with pytest.raises(DataError, match=text if part != "calibration" else text.replace("3", "2")):
        train(PLAN, tmp_path / "run", splits=splits(part), backbone_file=network)
    assert not (tmp_path / "run/work/cache").exists()
