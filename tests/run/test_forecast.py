"""What `--dry-run` says, and that it leaves nothing behind."""

from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.data import Splits, as_samples
from offramp.errors import PlanError, ShapeError
from offramp.run.forecast import Forecast, forecast_run
from offramp.run.plan import Plan
from offramp.run.steps import train

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3),
    )
"""
PLAN: dict[str, Any] = {
    "backbone": {"name": "python"},
    "data": {"kind": "fashion_mnist"},
    "branches": {
        "1": [{"kind": "conv", "filters": 2, "hidden": 5}, {"kind": "slvit", "patch": 2}],
        "3": [{"kind": "conv", "filters": 2, "hidden": 5, "standardise": True}],
    },
    "train": {"lr": [1e-3, 1e-4], "seeds": [0, 1], "epochs": 2, "batch_size": 16},
    "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
}
SIZES = {"train": 40, "validation": 21, "calibration": 22, "test": 23}
TAP_VALUES = 5 * 8 * 6 + 7 * 6 * 4


def plan(**train: Any) -> Plan:
    return Plan.model_validate({**PLAN, "train": {**PLAN["train"], **train}})


@pytest.fixture(scope="module")
def splits() -> Splits:
    rng = np.random.default_rng(1)
    parts = {}
    for name, size in SIZES.items():
        pictures = rng.normal(size=(size, 2, 8, 6)).astype(np.float32)
        parts[name] = as_samples((pictures, rng.integers(0, 3, size)))
    return Splits.of(parts, target_names=("ant", "bee", "cow"))


@pytest.fixture
def given(tmp_path: Path, splits: Splits) -> dict[str, Any]:
    (tmp_path / "network.py").write_text(NETWORK)
    return {"splits": splits, "backbone_file": f"{tmp_path / 'network.py'}:network"}


def ticking(plan: Plan, folder: Path, given: dict[str, Any], **options: Any) -> Forecast:
    """With a clock that takes a second from each look to the next."""
    ticks = count()
    return forecast_run(plan, folder, clock=lambda: float(next(ticks)), **given, **options)


def test_a_new_run_is_foreseen_and_nothing_is_written(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    found = ticking(plan(), tmp_path / "runs" / "new", given)
    assert sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts) == before
    assert (found.state, found.trials, found.kept, found.resumed) == ("new", 12, 0, 0)
    assert found.samples == SIZES
    assert found.how == "cached"
    assert found.tap_bytes == found.tap_bytes_missing == (40 + 21) * TAP_VALUES * 2
    assert found.enough_disk
    text = str(found)
    assert "12 of 12 to train" in text
    assert "cached: the taps take" in text
    assert all(len(line) < 200 for line in text.splitlines())


@pytest.mark.slow
def test_the_bytes_foreseen_are_the_bytes_written(tmp_path: Path, given: dict[str, Any]) -> None:
    small = plan(seeds=[0], lr=1e-3, epochs=1)
    found = ticking(small, tmp_path / "run", given)
    train(small, tmp_path / "run", **given)
    taps = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.bin"))
    assert taps == found.tap_bytes
    rest = (tmp_path / "run" / "model.safetensors", *(tmp_path / "run" / "outputs").iterdir())
    assert sum(path.stat().st_size for path in rest) < found.run_bytes + 40_000  # their heads


@pytest.mark.slow
def test_existing_taps_are_not_counted_again(tmp_path: Path, given: dict[str, Any]) -> None:
    small = plan(seeds=[0], lr=1e-3, epochs=1)
    train(small, tmp_path / "run", cache=tmp_path / "taps", **given)
    again = ticking(small, tmp_path / "run", given)
    assert (again.state, again.kept, again.seconds) == ("finished", 3, None)
    assert "nothing would be trained" in str(again)
    more = ticking(plan(seeds=[0, 1], lr=1e-3, epochs=1), tmp_path / "run", given)
    assert (more.state, more.trials, more.kept) == ("extends", 6, 3)
    assert more.tap_bytes_missing == more.tap_bytes > 0
    shared = ticking(small, tmp_path / "other", given, cache=tmp_path / "taps")
    assert (shared.state, shared.tap_bytes_missing) == ("new", 0)
    assert shared.seconds is not None
    assert shared.seconds["taps"] == 0


def test_time_grows_with_epochs_and_fused_pays_the_backbone_in_each(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    def seconds(**settings: Any) -> float:
        found = ticking(plan(**settings), tmp_path / "run", given, threads=1)
        assert found.seconds is not None
        return found.seconds["training"]

    assert seconds(epochs=6) == pytest.approx(3 * seconds(epochs=2))
    assert seconds(epochs=6, how="fused") > seconds(epochs=6, how="cached")


def test_too_little_disk_is_pointed_out(tmp_path: Path, given: dict[str, Any]) -> None:
    found = ticking(plan(how="cached"), tmp_path / "run", given)
    full = Forecast(**{**vars(found), "enough_disk": False})
    assert "NOT ENOUGH" in str(full)
    assert full.as_json()["enough_disk"] is False


def test_a_forecast_takes_what_training_takes() -> None:
    assert list(signature(forecast_run).parameters) == list(signature(train).parameters)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"branches": {"1": [{"kind": "slvit", "patch": 5}]}}, ShapeError),
        ({"task": "regression"}, PlanError),
    ],
)
def test_mistakes_of_the_plan_are_found(
    tmp_path: Path, given: dict[str, Any], changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ticking(Plan.model_validate({**PLAN, **changes}), tmp_path / "run", given)
    assert not (tmp_path / "run").exists()
