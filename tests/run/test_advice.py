"""The advice in errors about a finished run works when it is followed."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from typer.testing import CliRunner

from offramp.backbones.zoo import build
from offramp.cli import app
from offramp.data import Splits, as_samples
from offramp.errors import OfframpError
from offramp.run import stored
from offramp.run.extension import NOTHING_TRAINED
from offramp.run.plan import Plan
from offramp.run.steps import evaluate, train
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN

Act = Callable[["Place"], object]


@dataclass
class Place:
    """A finished run, its weights file, and the folder that commands now name."""

    folder: Path
    weights: Path
    out: Path

    @property
    def plan(self) -> Plan:
        return Plan.model_validate(
            {
                "backbone": {
                    "name": "timm:test_resnet",
                    "weights": str(self.weights),
                    "num_outputs": 3,
                },
                "data": {"kind": "fashion_mnist"},
                "branches": {"layer1": [{"kind": "conv", "filters": 2, "hidden": 5}]},
                "train": {"epochs": 1, "batch_size": 8, "seeds": [0]},
                "evaluate": {"timing_repeats": 1, "timing_warmup": 0, "bootstrap_draws": 9},
            }
        )


def data() -> Splits:
    rng = np.random.default_rng(0)
    parts = {
        name: as_samples((rng.normal(size=(12, 3, 16, 16)).astype(np.float32), np.arange(12) % 3))
        for name in ("train", "validation", "calibration", "test")
    }
    return Splits.of(parts, target_names=("ant", "bee", "cow"))


def write_weights(path: Path, seed: int) -> None:
    torch.save(build("timm:test_resnet", num_outputs=3, seed=seed).state_dict(), path)


def train_again(place: Place) -> object:
    return train(place.plan, place.out, splits=data())


def evaluate_again(place: Place) -> object:
    return evaluate(place.out, splits=data())


def calibrate_again(place: Place) -> None:
    invoke("calibrate", str(place.out), "--budget", "1e15")


def simulate(place: Place) -> None:
    invoke("simulate", str(place.out), "--rate", "10", "--deadline-ms", "30", "--requests", "9")


def invoke(*arguments: str) -> None:
    if error := CliRunner().invoke(app, arguments).exception:
        raise error


def choose_another_folder(place: Place) -> None:
    place.out = place.folder.with_name("another")
    train_again(place)


def delete_all_but_plan_and_work(place: Place) -> None:
    for path in place.folder.iterdir():
        if path.name not in ("plan.yaml", "work"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    train_again(place)


def delete_the_plan(place: Place) -> None:
    (place.folder / "plan.yaml").unlink()
    evaluate_again(place)


def restore_the_weights(place: Place) -> None:
    write_weights(place.weights, 0)


def damage(name: str) -> Act:
    def act(place: Place) -> None:
        path = place.folder / name
        path.write_bytes(path.read_bytes()[:-1])

    act.__name__ = f"damaged {name}"
    return act


def remove(name: str) -> Act:
    def act(place: Place) -> None:
        (place.folder / name).unlink()

    act.__name__ = f"missing {name}"
    return act


def change_the_plan(place: Place) -> None:
    path = place.folder / "plan.yaml"
    path.write_text(path.read_text().replace("batch_size: 8", "batch_size: 9"))


def change_the_weights(place: Place) -> None:
    write_weights(place.weights, 1)


MODEL = "delete everything that offramp wrote here except plan.yaml and work, and repeat the same"
RESULTS = "Run `offramp evaluate` on this folder to write it again"


def row(
    spoil: Act, meet: Act, advice: str, follow: Act, *marks: pytest.MarkDecorator
) -> ParameterSet:
    names = (getattr(each, "__name__", "") for each in (spoil, follow))
    return pytest.param(spoil, meet, advice, follow, marks=marks, id=", ".join(names))


def slow(*given: Any) -> ParameterSet:
    return row(*given, pytest.mark.slow)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("advice")
    place = Place(root / "run", root / "weights.pth", root / "run")
    write_weights(place.weights, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "write_report", lambda *_: None)
        train_again(place)
    calibrate_again(place)
    return place


@pytest.fixture
def place(finished: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(stored, "write_report", lambda *_: None)
    write_weights(finished.weights, 0)
    folder = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    return Place(folder, finished.weights, folder)


@pytest.mark.parametrize(
    ("spoil", "meet", "advice", "follow"),
    [
        row(damage("model.safetensors"), train_again, MODEL, delete_all_but_plan_and_work),
        slow(remove("model.safetensors"), train_again, MODEL, delete_all_but_plan_and_work),
        slow(damage("manifest.json"), train_again, MODEL, delete_all_but_plan_and_work),
        slow(remove("manifest.json"), train_again, "Choose another folder", choose_another_folder),
        slow(damage("metrics.json"), train_again, RESULTS, evaluate_again),
        slow(remove("metrics.json"), train_again, RESULTS, evaluate_again),
        slow(remove("outputs/test.npz"), train_again, RESULTS, evaluate_again),
        slow(damage("policy.json"), simulate, "`offramp calibrate` on this", calibrate_again),
        slow(remove("policy.json"), simulate, "`offramp calibrate` on this", calibrate_again),
        slow(change_the_plan, evaluate_again, "Delete it, then run `offramp eval", delete_the_plan),
        slow(change_the_plan, train_again, "another --out", choose_another_folder),
        slow(change_the_weights, train_again, "another --out", choose_another_folder),
        row(change_the_weights, train_again, "or restore them", restore_the_weights),
    ],
)
def test_advice_about_a_finished_run_works_when_followed(
    place: Place, spoil: Act, meet: Act, advice: str, follow: Act
) -> None:
    spoil(place)
    with pytest.raises(OfframpError, match=advice):
        meet(place)
    follow(place)
    meet(place)
    names = read_folder(place.out, RUN).manifest["files"]
    read_folder(place.out, RUN, names)
    assert train(place.plan, place.out, splits=data()).work_done == NOTHING_TRAINED
