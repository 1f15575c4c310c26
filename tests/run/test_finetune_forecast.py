"""What `offramp finetune --dry-run` says, and that it leaves nothing behind."""

from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.data import Splits, as_samples
from offramp.data.density import with_maps
from offramp.errors import BundleError, DataError, OfframpError, PlanError, ShapeError
from offramp.run.finetune_forecast import FinetuneForecast, forecast_finetuning
from offramp.run.finetune_plan import FinetunePlan
from offramp.run.finetuning import finetune

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Flatten(), nn.Linear(300, 9),
    )

def plain():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(120, 4))

def fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(288, 4)
        def forward(self, images):
            if self.training:
                raise RuntimeError("only evaluated")
            return self.last(images.flatten(1))
    return Fails()

def counter():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Conv2d(3, 1, 1)
            self.total = nn.Linear(96, 1)
        def density(self, images):
            return self.output(images)
        def forward(self, images):
            return self.total(self.density(images).flatten(1))
    return Counter()
"""
PLAN: dict[str, Any] = {
    "backbone": {"name": "python"},
    "data": {"kind": "python"},
    "top": {"hidden": 12, "dropout": 0.2},
    "train": {"epochs": 4, "batch_size": 16, "lr": 1e-2},
}
SIZES = {"train": 81, "validation": 33, "calibration": 30, "test": 31}
COUNTS: dict[str, Any] = {"task": "regression", "top": None, "density": {"epochs": 3}}


def pictures(count: int) -> Any:
    draw = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, 12, 8, generator=draw)


SPLITS = Splits.of(
    {name: as_samples((pictures(size), torch.arange(size) % 4)) for name, size in SIZES.items()},
    target_names=("ant", "bee", "cow", "dog"),
)
SMALL = Splits.of(
    {name: as_samples((torch.zeros(9, 3, 5, 4), torch.arange(9) % 4)) for name in SIZES},
    target_names=("ant", "bee", "cow", "dog"),
)
MAPS = Splits.of(
    {
        name: with_maps((pictures(size), np.arange(size) / 7), np.ones((size, 12, 8), np.float32))
        for name, size in SIZES.items()
    },
    target_names=("people",),
    task="regression",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(NETWORK)
    return tmp_path


def given(place: Path, function: str, splits: Splits) -> dict[str, Any]:
    return {"splits": splits, "backbone_file": f"{place / 'mine.py'}:{function}"}


def forecast(
    place: Path, function: str = "network", splits: Splits = SPLITS, **changes: Any
) -> FinetuneForecast:
    """With a clock that takes a second from each look to the next."""
    ticks = count()
    return forecast_finetuning(
        FinetunePlan.model_validate({**PLAN, **changes}),
        place / "runs" / "backbone",
        clock=lambda: float(next(ticks)),
        **given(place, function, splits),
    )


def train(place: Path, **options: Any) -> None:
    plan = FinetunePlan.model_validate(PLAN)
    finetune(plan, place / "runs" / "backbone", **given(place, "network", SPLITS), **options)


def stopped(place: Path, epochs: int) -> None:
    """A finetuning that is stopped after some epochs."""

    def stop(what: str, done: int, total: int) -> None:
        if done > 81 * epochs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(place, progress=stop)


def test_a_new_finetuning_is_foreseen_and_nothing_is_written(place: Path) -> None:
    found = forecast(place)
    assert [path.name for path in place.rglob("*")] == ["mine.py"]
    assert (found.state, found.samples) == ("new", SIZES)
    assert (found.backbone, found.num_outputs) == ("mine.py:network", 4)
    [stage] = found.stages
    assert (stage.name, stage.epochs, stage.trained, stage.steps) == ("train", 4, 0, 5)
    assert found.enough_disk
    assert all(len(line) < 100 for line in str(found).splitlines()[1:])


def test_layers_and_parameters_that_are_trained_are_counted(place: Path) -> None:
    norms, top = 2 * 6 + 2 * 5, 300 * 12 + 12 + 12 * 4 + 4
    whole = norms + top + (3 * 9 * 6 + 6) + (6 * 9 * 5 + 5)
    every = forecast(place)
    assert (every.trained_layers, every.layers) == (6, 6)
    assert (every.trained_parameters, every.parameters) == (whole, whole)
    some = forecast(place, trains="batch_norm")
    assert (some.trained_layers, some.layers) == (4, 6)
    assert (some.trained_parameters, some.parameters) == (norms + top, whole)
    assert f"4 of 6 layers, {norms + top:,} of {whole:,} parameters" in str(some)


@pytest.mark.parametrize("stages", [{}, {"density": {"epochs": 3, "batch_size": 9}}])
def test_the_folder_never_grows_larger_than_foreseen(place: Path, stages: dict[str, Any]) -> None:
    changes = {**COUNTS, **stages} if stages else {"trains": "batch_norm"}
    function, splits = ("counter", MAPS) if stages else ("network", SPLITS)
    found, out = forecast(place, function, splits, **changes), place / "a"
    sizes = []

    def look(*_: Any) -> None:
        sizes.append(sum(path.stat().st_size for path in out.rglob("*") if path.is_file()))

    plan = FinetunePlan.model_validate({**PLAN, **changes})
    finetune(plan, out, progress=look, **given(place, function, splits))
    assert max(sizes) < found.disk_bytes + 20_000  # heads, names and history
    assert 0 <= (out / "model.safetensors").stat().st_size - found.weight_bytes < 2_000


def test_epochs_of_an_interrupted_finetuning_are_not_trained_again(place: Path) -> None:
    new = forecast(place)
    stopped(place, 3)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    left = forecast(place)
    assert (left.state, left.stages[0].trained) == ("resumes", 3)
    assert left.stages[0].seconds == pytest.approx(new.stages[0].seconds / 4)
    assert "3 trained already" in str(left)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_finished_finetuning_has_nothing_to_train(place: Path) -> None:
    train(place)
    found = forecast(place)
    assert (found.state, found.stages, found.samples) == ("finished", (), SIZES)
    assert "nothing would be trained" in str(found)
    with pytest.raises(PlanError, match="another plan; the two plans differ in trains"):
        forecast(place, trains="batch_norm")


def test_each_stage_has_its_own_line_and_time(place: Path) -> None:
    changes = {"density": {"epochs": 3, "batch_size": 9}}
    found = forecast(place, "counter", MAPS, **{**COUNTS, **changes})
    assert [(each.name, each.epochs, each.steps) for each in found.stages] == [
        ("density", 3, 9),
        ("train", 4, 5),
    ]
    assert all(each.seconds > 0 for each in found.stages)
    assert "density  at most 3 epochs of 9 steps" in str(found)


def test_time_grows_with_epochs(place: Path) -> None:
    def seconds(epochs: int) -> float:
        [stage] = forecast(place, train={**PLAN["train"], "epochs": epochs}).stages
        return stage.seconds

    assert seconds(6) == pytest.approx(3 * seconds(2))


def test_too_little_disk_is_pointed_out(place: Path) -> None:
    full = FinetuneForecast(**{**vars(forecast(place)), "enough_disk": False})
    assert "NOT ENOUGH" in str(full)


def test_a_forecast_takes_what_finetuning_takes() -> None:
    assert list(signature(forecast_finetuning).parameters) == list(signature(finetune).parameters)


@pytest.mark.parametrize(
    ("changes", "function", "splits", "error"),
    [
        ({"trains": "batch_norm"}, "plain", SPLITS, PlanError),
        ({"task": "regression"}, "network", SPLITS, PlanError),
        ({"top": None}, "network", SPLITS, PlanError),
        ({"backbone": {"name": "python", "weights": "nowhere"}}, "network", SPLITS, PlanError),
        ({**COUNTS}, "plain", MAPS, PlanError),
        ({}, "network", SMALL, ShapeError),
        ({}, "fails", SPLITS, ShapeError),
        ({"data": {"kind": "image_folder", "root": "nowhere"}}, "network", None, DataError),
    ],
)
def test_it_finds_what_finetuning_would_find_and_writes_nothing(
    place: Path,
    changes: dict[str, Any],
    function: str,
    splits: Splits | None,
    error: type[OfframpError],
) -> None:
    plan = FinetunePlan.model_validate({**PLAN, **changes})
    file = f"{place / 'mine.py'}:{function}"
    texts = []
    for work in (forecast_finetuning, finetune):
        with pytest.raises(error) as caught:
            work(plan, place / "out", splits=splits, backbone_file=file)
        texts.append(str(caught.value))
        assert (place / "out").exists() is (work is finetune)
    assert texts[0] == texts[1]


def test_files_of_the_user_are_in_the_way_of_both(place: Path) -> None:
    (place / "runs" / "backbone").mkdir(parents=True)
    (place / "runs" / "backbone" / "history.json").write_text("mine")
    with pytest.raises(BundleError, match=r"contains history\.json, which would be overwritten"):
        forecast(place)
