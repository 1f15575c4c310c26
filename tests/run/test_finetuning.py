"""Finetuning a tiny network on made pictures, and training exits on the folder that it leaves."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from offramp.backbones.zoo import build
from offramp.data import Disco, Splits, as_samples
from offramp.data.density import with_maps
from offramp.errors import BundleError, DataError, OfframpError, PlanError, ShapeError
from offramp.multiexit.model import MultiExit
from offramp.run.finetune_plan import FinetunePlan, load_finetune_plan
from offramp.run.finetuning import FinetuneResult, finetune
from offramp.run.listing import list_runs
from offramp.run.plan import Plan
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result
from offramp.training.settings import FinetuneSettings

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

def two():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.last = nn.Linear(7, 5), nn.Linear(3, 5), nn.Linear(5, 2)
        def forward(self, a, b):
            return self.last(torch.relu(self.one(a) + self.other(b)))
    torch.manual_seed(1)
    return Two()
"""
CLASSES = ("ant", "bee", "cow", "dog")
PLAN: dict[str, Any] = {
    "backbone": {"name": "python"},
    "data": {"kind": "python"},
    "top": {"hidden": 12, "dropout": 0.2},
    "train": {"epochs": 5, "batch_size": 16, "lr": 1e-2},
}


def pictures(count: int, seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=draw)
    shade = labels[:, None, None, None] * torch.tensor([1.0, -0.5, 0.2])[:, None, None]
    return as_samples((torch.randn(count, 3, 12, 8, generator=draw) + shade, labels))


def splits_of(make: Callable[[int, int], Any], **facts: Any) -> Splits:
    counts = {"train": 81, "validation": 33, "calibration": 30, "test": 31}
    parts = {name: make(count, seed) for seed, (name, count) in enumerate(counts.items())}
    return Splits.of(parts, **facts)


SPLITS = splits_of(pictures, target_names=CLASSES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "mine.py").write_text(NETWORK)
    return folder


def run(
    place: Path, out: Path, splits: Splits = SPLITS, function: str = "network", **changes: Any
) -> FinetuneResult:
    plan = FinetunePlan.model_validate({**PLAN, **changes})
    file = f"{place / 'mine.py'}:{function}" if plan.backbone.name == "python" else None
    return finetune(plan, out, splits=splits, backbone_file=file)


@pytest.fixture(scope="module")
def result(place: Path) -> FinetuneResult:
    return run(place, place / "backbone")


def test_the_accuracy_rises_and_the_best_epoch_is_kept(result: FinetuneResult) -> None:
    scores = [epoch["validation_score"] for epoch in result.history["train"]]
    losses = [epoch["validation_loss"] for epoch in result.history["train"]]
    assert result.epoch == 1 + int(np.argmin(losses))
    assert result.validation == scores[result.epoch - 1] > max(scores[0], 0.6)
    assert result.test > 0.6


def test_the_folder_holds_the_documented_files(result: FinetuneResult, place: Path) -> None:
    files = {path.name for path in (place / "backbone").iterdir()} - {".lock"}
    assert files == {
        *("manifest.json", "plan.yaml", "model.safetensors", "history.json", "environment.json")
    }
    manifest = json.loads((place / "backbone" / "manifest.json").read_text())
    assert manifest["format"] == "offramp backbone 2"
    assert manifest["class_names"] == [*CLASSES]
    assert manifest["backbone"]["top"] == {"hidden": 12, "dropout": 0.2}
    assert manifest["result"]["num_outputs"] == 4


def test_the_network_of_the_folder_answers_as_measured(result: FinetuneResult, place: Path) -> None:
    file = f"{place / 'mine.py'}:network"
    model = build("python", weights=place / "backbone", backbone_file=file)
    [images], labels = SPLITS.test.read(range(31)).inputs, SPLITS.test.targets
    with torch.no_grad():
        right = (model(images).argmax(dim=1).numpy() == labels).mean()
    assert result.test == pytest.approx(right)


def test_work_that_a_kill_left_in_a_finished_folder_is_removed(
    result: FinetuneResult, place: Path
) -> None:
    (place / "backbone" / "work").mkdir()
    assert run(place, place / "backbone").test == result.test
    assert not (place / "backbone" / "work").exists()


def test_a_finished_folder_is_read_and_not_trained_again(
    result: FinetuneResult, place: Path
) -> None:
    told: list[str] = []
    plan = FinetunePlan.model_validate(PLAN)
    file = f"{place / 'mine.py'}:network"
    again = finetune(
        plan,
        place / "backbone",
        splits=SPLITS,
        backbone_file=file,
        progress=lambda what, *_: told.append(what),
    )
    assert told == []
    assert str(again) == str(result)
    assert "nothing was trained" in again.work_done


def test_a_stopped_finetuning_resumes_to_the_same_weights(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    plan = FinetunePlan.model_validate(PLAN)

    def stop(what: str, done: int, total: int) -> None:
        if done > 200:
            raise KeyboardInterrupt

    file = f"{place / 'mine.py'}:network"
    with pytest.raises(KeyboardInterrupt):
        finetune(plan, tmp_path / "a", splits=SPLITS, backbone_file=file, progress=stop)
    [listed] = list_runs(tmp_path).runs
    assert (listed.state, listed.step) == ("unfinished", "finetuning, 2 of 5 epochs done")
    again = run(place, tmp_path / "a")
    assert again.history == result.history
    one, other = (load_file(p / "model.safetensors") for p in (place / "backbone", tmp_path / "a"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_folder_is_listed_with_its_accuracy(result: FinetuneResult, place: Path) -> None:
    [listed] = [each for each in list_runs(place).runs if each.name == "backbone"]
    assert (listed.state, listed.backbone, listed.branches) == ("backbone", "mine.py:network", None)
    assert listed.best is not None
    assert (listed.best.name, listed.best.value) == ("final", result.test)
    assert "% at final" in str(list_runs(place))


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "history.json"])
def test_a_folder_that_lost_a_file_is_listed_as_damaged(
    result: FinetuneResult, place: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(place / "backbone", tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    (tmp_path / "a" / "work").mkdir()
    [listed] = list_runs(tmp_path).runs
    expected = "unfinished" if name == "manifest.json" else "damaged"
    assert listed.state == expected


def exits(place: Path, **backbone: Any) -> Plan:
    return Plan.model_validate(
        {
            "backbone": {"name": "python", "weights": str(place / "backbone"), **backbone},
            "data": {"kind": "python"},
            "branches": {"2": [{"kind": "conv", "filters": 2, "hidden": 5}]},
            "train": {"epochs": 1},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
        }
    )


@pytest.mark.slow
def test_a_plan_that_names_the_folder_trains_exits_on_the_finetuned_network(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    file = f"{place / 'mine.py'}:network"
    done = train(exits(place), tmp_path / "run", splits=SPLITS, backbone_file=file)
    assert done.exits.points[-1].value == pytest.approx(result.test)
    evaluated = evaluate(tmp_path / "run", splits=SPLITS, backbone_file=file)
    assert evaluated.model.digest() == done.model.digest()
    facts = done.model.info.backbone or {}
    assert (facts["num_outputs"], facts["top"]) == (4, {"hidden": 12, "dropout": 0.2})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"num_outputs": 5}, "num_outputs is 4, not 5"),
        ({"num_outputs": 4, "top": {"hidden": 8, "dropout": 0.2}}, "top is .*12.*, not .*8"),
        ({"name": "torchvision:resnet18"}, "name is 'python', not 'torchvision:resnet18'"),
        ({"options": {"width": 3}}, "options.width is None, not 3"),
    ],
)
def test_a_plan_that_contradicts_the_folder_is_refused(
    result: FinetuneResult, place: Path, tmp_path: Path, given: dict[str, Any], text: str
) -> None:
    file = f"{place / 'mine.py'}:network" if "name" not in given else None
    with pytest.raises(PlanError, match=text):
        train(exits(place, **given), tmp_path / "run", splits=SPLITS, backbone_file=file)


@pytest.mark.slow
def test_a_shipped_network_is_finetuned_from_its_weights_and_stored_with_the_run(
    tmp_path: Path,
) -> None:
    data = {"kind": "fashion_mnist", "image_size": 48, "limit": 40}
    plan = {
        "backbone": {"name": "timm:test_resnet", "options": {"in_chans": 3}},
        "data": data,
        "train": {"epochs": 1, "batch_size": 20},
    }
    finetune(FinetunePlan.model_validate(plan), tmp_path / "backbone")
    folder = str(tmp_path / "backbone")
    run_plan = Plan.model_validate(
        {
            "backbone": {"name": "timm:test_resnet", "weights": folder},
            "data": data,
            "branches": {"layer1": [{"kind": "conv", "filters": 2, "hidden": 5}]},
            "train": {"epochs": 1},
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
        }
    )
    done = train(run_plan, tmp_path / "run")
    (tmp_path / "backbone").rename(tmp_path / "elsewhere")  # the run has a copy of the weights
    assert MultiExit.load(tmp_path / "run").digest() == done.model.digest()
    assert load_result(tmp_path / "run").model.digest() == done.model.digest()


def test_a_finetuned_folder_can_be_finetuned_again_for_other_classes(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    def two_classes(count: int, seed: int) -> Any:
        samples = pictures(count, seed)
        return as_samples((samples.read(range(count)).inputs[0], samples.targets % 2))

    splits = splits_of(two_classes, target_names=("even", "odd"))
    backbone = {"name": "python", "weights": str(place / "backbone")}
    again = run(place, tmp_path / "b", splits, backbone=backbone, top={"hidden": 6})
    state = load_file(tmp_path / "b" / "model.safetensors")
    assert again.num_outputs == 2
    assert {tuple(state[f"7.{n}.weight"].shape) for n in (0, 3)} == {(6, 300), (2, 6)}


def test_without_a_top_the_last_layer_is_trained_on(place: Path, tmp_path: Path) -> None:
    splits = splits_of(pictures, target_names=("a", "b", "c", "d"))
    again = run(place, tmp_path / "a", splits, "plain", top=None)
    assert again.num_outputs == 4
    with pytest.raises(PlanError, match="has 9 outputs, but the data has 4 classes"):
        run(place, tmp_path / "b", splits, "network", top=None)


def values(count: int, seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    one, other = torch.randn(count, 7, generator=draw), torch.randn(count, 3, generator=draw)
    return as_samples(((one, other), one[:, 0] + other[:, 1]))


def test_a_network_of_two_inputs_is_finetuned_to_values(place: Path, tmp_path: Path) -> None:
    splits = splits_of(values, target_names=("sum",), task="regression")
    train = {"epochs": 9, "batch_size": 8, "lr": 1e-2}
    done = run(place, tmp_path / "a", splits, "two", task="regression", train=train)
    constant = float(np.abs(splits.test.targets - np.median(splits.test.targets)).mean())
    assert (done.measure.head, done.num_outputs) == ("MAE (sum)", 1)
    assert 0 < done.test < 0.8 * constant
    kept = done.history["train"][done.epoch - 1]
    assert done.validation == -kept["validation_score"]
    assert done.validation_rmse == kept["validation_rmse"]


def test_errors_are_shown_with_their_unit_and_their_root(place: Path, tmp_path: Path) -> None:
    splits = splits_of(values, target_names=("people",), task="regression")
    plan = {"task": "regression", "train": {"epochs": 2, "batch_size": 8}}
    done = run(place, tmp_path / "a", splits, "two", **plan)
    network = build("python", weights=tmp_path / "a", backbone_file=f"{place / 'mine.py'}:two")
    with torch.no_grad():
        answers = network(*splits.test.read(range(31)).inputs)[:, 0].numpy()
    errors = np.abs(answers - splits.test.targets)
    mae, rmse = errors.mean(), np.sqrt((errors**2).mean())
    assert f"test: MAE (people) {mae:.3f}, RMSE (people) {rmse:.3f}" in str(done)
    assert done.measure.note in str(done)
    assert str(run(place, tmp_path / "a", splits, "two", **plan)) == str(done)
    assert f"MAE (people) {mae:.3g} at final" in str(list_runs(tmp_path))


def counts(count: int, seed: int) -> Any:
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 16, 24, generator=draw)
    sounds = torch.randn(count, 1, 96, 64, generator=draw)
    maps = images.mean(dim=1)[:, ::8, ::8].numpy()
    return with_maps(((images, sounds), maps.sum(axis=(1, 2))), maps)


CROWD: dict[str, Any] = {
    "task": "regression",
    "backbone": {"name": "paper:audiocsrnet", "options": {"height": 16, "width": 24}},
    "top": None,
    "density": {"optimiser": "adamw", "lr": 1e-4, "lr_decay": 0.99, "epochs": 2, "batch_size": 4},
    "train": {"optimiser": "adamw", "lr": 1e-5, "lr_decay": 0.99, "epochs": 1, "batch_size": 4},
}


@pytest.mark.slow
def test_a_network_that_counts_is_trained_in_two_stages(place: Path, tmp_path: Path) -> None:
    parts = {name: counts(5 + seed, seed) for seed, name in enumerate(("train", "validation"))}
    parts["test"] = counts(4, 2)
    splits = Splits.of(parts, target_names=("people",), task="regression")
    done = run(place, tmp_path / "a", splits, **CROWD)
    first, second = done.history["density"], done.history["train"]
    assert (len(first), len(second)) == (2, 1)
    assert first[1]["lr"] == pytest.approx(0.99e-4)
    assert second[0]["validation_loss"] == pytest.approx(done.validation)
    build("paper:audiocsrnet", weights=tmp_path / "a")


@pytest.mark.gpu
def test_a_gpu_trains_and_repeats_its_bits(place: Path, tmp_path: Path) -> None:
    plan, file = FinetunePlan.model_validate(PLAN), f"{place / 'mine.py'}:network"
    for name in ("a", "b"):
        finetune(plan, tmp_path / name, splits=SPLITS, backbone_file=file, device="cuda")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_disco_trains_density_maps_and_then_counts(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    from stand_ins.disco import write  # it needs soundfile

    write(tmp_path / "disco", 4, seed=0, size=(56, 80))
    options = {"height": 56, "width": 80}
    data: dict[str, Any] = {
        "kind": "disco",
        "root": tmp_path / "disco",
        "image_size": [56, 80],
    }
    crowd = {**CROWD, "backbone": {"name": "paper:audiocsrnet", "options": options}, "data": data}
    done = finetune(FinetunePlan.model_validate(crowd), tmp_path / "a")
    assert [len(epochs) for epochs in done.history.values()] == [2, 1]
    splits = Disco.model_validate(data).load()
    network = build("paper:audiocsrnet", weights=tmp_path / "a", options=options)
    with torch.no_grad():
        counts = network(*splits.test.read(range(4)).inputs)[:, 0].numpy()
    assert done.test == pytest.approx(np.abs(counts - splits.test.targets).mean(), rel=1e-4)
    assert done.validation == pytest.approx(done.history["train"][0]["validation_loss"])
    wrong = {**crowd, "data": {**data, "image_size": [64, 80]}}
    with pytest.raises(OfframpError, match="cannot take samples of shape"):
        finetune(FinetunePlan.model_validate(wrong), tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "function", "kind", "text"),
    [
        ({"backbone": {"name": "python", "num_outputs": 5}}, "network", PlanError, "has 4 classes"),
        ({"trains": "batch_norm"}, "plain", PlanError, "no batch-norm layer"),
        ({"task": "regression"}, "network", PlanError, "task is regression, but its data is for"),
        ({"train": {"augment": {"shift": 9}}}, "network", ShapeError, "a shift by up to 9 pixels"),
    ],
)
def test_what_does_not_go_together_is_one_clear_error(
    place: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    function: str,
    kind: type[Exception],
    text: str,
) -> None:
    with pytest.raises(kind, match=text):
        run(place, tmp_path / "a", function=function, **changes)


def test_pictures_of_another_size_name_the_network_and_the_shape(
    place: Path, tmp_path: Path
) -> None:
    def small(count: int, seed: int) -> Any:
        return as_samples((torch.randn(count, 3, 6, 6), torch.arange(count) % 4))

    splits = splits_of(small, target_names=CLASSES)
    with pytest.raises(ShapeError, match=r"cannot take samples of shape \[\(3, 6, 6\)\]"):
        run(place, tmp_path / "a", splits)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"density": {}, "task": "classification"}, "needs `task: regression`"),
        ({**CROWD, "density": {"augment": {"flip": True}}}, "and not their maps"),
        (
            {**CROWD, "density": {"regression_loss": "mae"}},
            r"each map .* is train\.regression_loss",
        ),
        ({**CROWD, "density": FinetuneSettings()}, r"density: regression_loss has no effect here"),
        ({"backbone": {"name": "python", "top": {}}}, "beside `backbone`"),
        ({"train": {"lrr": 1}}, "no such setting, did you mean 'lr'"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(OfframpError, match=text):
        FinetunePlan(**{**PLAN, **changes})


def test_a_plan_with_two_stages_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = FinetunePlan.model_validate({**PLAN, **CROWD})
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    assert load_finetune_plan(tmp_path / "plan.yaml") == plan


def test_density_needs_maps_and_a_network_that_gives_them(place: Path, tmp_path: Path) -> None:
    splits = splits_of(values, target_names=("sum",), task="regression")
    changes = {"task": "regression", "density": {}}
    with pytest.raises(PlanError, match="such as paper:audiocsrnet, and Two has no such method"):
        run(place, tmp_path / "a", splits, "two", **changes)


def test_a_plan_of_its_own_stays_in_a_folder(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"another plan; the two plans differ in train\.lr"):
        run(place, place / "backbone", train={**PLAN["train"], "lr": 1e-3})
    other = splits_of(lambda count, seed: pictures(count, seed + 7), target_names=CLASSES)
    with pytest.raises(
        DataError, match="train data, validation data, calibration data, test data of"
    ):
        run(place, place / "backbone", other)
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"contains model\.safetensors, which would be over"):
        run(place, tmp_path)


def test_folders_of_another_kind_are_no_weights_and_no_place(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    file = f"{place / 'mine.py'}:network"
    train(exits(place), tmp_path / "run", splits=SPLITS, backbone_file=file)
    backbone = {"name": "python", "weights": str(tmp_path / "run")}
    with pytest.raises(BundleError, match="reads 'offramp backbone 2' here"):
        run(place, tmp_path / "run")
    with pytest.raises(BundleError, match="reads 'offramp backbone 2' here"):
        run(place, tmp_path / "a", backbone=backbone)
    with pytest.raises(BundleError, match="reads 'offramp run 2' here"):
        train(exits(place), place / "backbone", splits=SPLITS, backbone_file=file)


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
def test_a_changed_file_is_found_before_anything_is_trained(
    result: FinetuneResult, place: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(place / "backbone", tmp_path / "a")
    content = bytearray((tmp_path / "a" / name).read_bytes())
    content[-9] ^= 1
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(BundleError, match="repeat the same `offramp finetune`"):
        run(place, tmp_path / "b", backbone={"name": "python", "weights": str(tmp_path / "a")})
    with pytest.raises(BundleError, match="repeat the same `offramp finetune`"):
        run(place, tmp_path / "a")


def test_a_finished_folder_notices_that_its_first_weights_have_changed(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "backbone", tmp_path / "first")
    backbone = {"name": "python", "weights": str(tmp_path / "first")}
    run(place, tmp_path / "second", backbone=backbone)
    assert "nothing was trained" in run(place, tmp_path / "second", backbone=backbone).work_done
    shutil.rmtree(tmp_path / "first")
    assert "nothing was trained" in run(place, tmp_path / "second", backbone=backbone).work_done
    run(place, tmp_path / "first", train={**PLAN["train"], "epochs": 1})
    with pytest.raises(DataError, match="but the first weights of its plan have changed"):
        run(place, tmp_path / "second", backbone=backbone)


def test_an_unfinished_or_missing_folder_is_refused_as_weights(
    result: FinetuneResult, place: Path, tmp_path: Path
) -> None:
    backbone = {"name": "python", "weights": str(tmp_path / "half")}
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "plan.yaml").write_text("backbone: {name: python}")
    with pytest.raises(BundleError, match="repeat the same `offramp finetune` and it resumes"):
        run(place, tmp_path / "a", backbone=backbone)
    with pytest.raises(PlanError, match="nowhere is not a folder that `offramp finetune`"):
        run(place, tmp_path / "a", backbone={"name": "python", "weights": "nowhere"})
