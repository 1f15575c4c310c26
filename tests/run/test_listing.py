"""What `offramp runs` says of the folders that it finds."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from offramp.cli import app
from offramp.doubts import STAND_IN_DOUBT
from offramp.errors import BundleError
from offramp.run.listing import ListedRun, Listing, list_runs
from offramp.storage.folder import changing
from offramp.storage.manifest import RUN

PLAN: dict[str, Any] = {
    "backbone": {"name": "torchvision:resnet18"},
    "data": {"kind": "image_folder", "root": "/data/photos"},
    "branches": {"layer1": [{"kind": "conv"}, {"kind": "slvit"}], "layer2": [{"kind": "conv"}]},
    "train": {"seeds": [0, 1], "lr": [1e-3, 1e-4]},
}
POINTS = [{"name": "layer1", "value": 0.75}, {"name": "layer2", "value": 0.5}]


def finished(folder: Path, **content: Any) -> Path:
    trials = [{"cut": "layer1", "spec": {"kind": kind}} for kind in ("conv", "slvit", "conv")]
    facts = {"task": "classification", "cuts": [0, 0], "trials": trials, "failed": [], "plan": PLAN}
    exits = {"exits": [*POINTS, {"name": "final", "value": 0.9}]}
    with changing(folder, RUN, facts | content) as staged:
        (staged / "model.safetensors").write_bytes(b"weights")
        (staged / "metrics.json").write_text(json.dumps({"measure": "accuracy", "exits": exits}))
    return folder


def unfinished(folder: Path) -> Path:
    (folder / "work").mkdir(parents=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    return folder


def one(folder: Path) -> ListedRun:
    [run] = list_runs(folder).runs
    return run


def test_a_finished_run_shows_what_it_found(tmp_path: Path) -> None:
    folder = finished(tmp_path / "first")
    (folder / "work").mkdir()
    (folder / "work" / "taps").write_bytes(bytes(10**6))
    with changing(folder, RUN) as staged:
        policies = [{"promise": {"goal": "max_drop", "limit": at}} for at in (0.01, 0.02)]
        (staged / "policy.json").write_text(json.dumps({"policies": policies}))
    run = one(tmp_path)
    assert (run.name, run.state, run.step) == ("first", "finished", "")
    assert (run.backbone, run.data) == ("torchvision:resnet18", "image_folder photos")
    assert (run.cuts, run.branches, run.trials, run.failed) == (2, 3, 12, 0)
    assert run.best is not None
    assert (run.best.name, run.best.value) == ("layer1", 0.75)
    assert run.policies == ("max_drop 0.01", "max_drop 0.02")
    assert 10**6 < run.num_bytes < 10**6 + 5000
    assert "75.0 % at layer1" in str(list_runs(tmp_path))


def test_a_backbone_of_the_user_s_own_is_listed_by_its_file_and_function(tmp_path: Path) -> None:
    run = one(finished(tmp_path, backbone={"name": "python", "function": "mine.py:network"}))
    assert run.backbone == "mine.py:network"


def test_the_best_exit_of_a_regression_has_the_least_error(tmp_path: Path) -> None:
    run = one(finished(tmp_path, task="regression"))
    assert run.best is not None
    assert run.best.name == "layer2"
    assert "MAE 0.5 at layer2" in str(list_runs(tmp_path))
    finished(tmp_path, task="regression", class_names=["people"])
    assert "MAE (people) 0.5 at layer2" in str(list_runs(tmp_path))


def test_a_value_with_a_warning_is_marked(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    for warnings, mark in (
        (["one"], "(1 warning)"),
        (["one", "two"], "(2 warnings)"),
        (["one", STAND_IN_DOUBT], "(stand-in files)"),
    ):
        with changing(folder, RUN) as staged:
            (staged / "metrics.json").write_text(json.dumps({**metrics, "warnings": warnings}))
        assert one(tmp_path).warnings == tuple(warnings)
        assert f"75.0 % at layer1 {mark}" in str(list_runs(tmp_path))


def state(work: Path, name: str, stopped: bool) -> None:
    (work / "state").mkdir(exist_ok=True)
    scalars = json.dumps({"plateau": {"stopped": stopped}, "failure": None})
    metadata = {"state": json.dumps({"scalars": scalars})}
    save_file({"w": torch.zeros(1).numpy()}, work / "state" / f"{name}.safetensors", metadata)


def test_an_unfinished_run_says_which_step_it_has_reached(tmp_path: Path) -> None:
    work = unfinished(tmp_path / "run") / "work"
    steps = [one(tmp_path).step]
    (work / "how.json").write_text("{}")
    steps.append(one(tmp_path).step)
    for number in range(3):
        state(work, str(number), stopped=number < 2)
    (work / "state" / "torn.safetensors").write_bytes(b"\x05")
    steps.append(one(tmp_path).step)
    for number in range(12):
        state(work, str(number), stopped=True)
    steps.append(one(tmp_path).step)
    assert one(tmp_path).state == "unfinished"
    assert steps == [
        "checking the data",
        "computing taps",
        "training, 2 of 12 branches done",
        "evaluating",
    ]


def test_a_run_that_is_being_extended_is_finished_all_the_same(tmp_path: Path) -> None:
    work = finished(tmp_path / "run") / "work"
    work.mkdir()
    bigger = {**PLAN, "train": {"seeds": [0, 1, 2], "lr": 1e-3}}
    (work / "extension.yaml").write_text(yaml.safe_dump(bigger))
    (work / "how.json").write_text("{}")
    state(work, "one", stopped=True)
    run = one(tmp_path)
    assert (run.state, run.step) == ("extending", "training, 1 of 9 branches done")
    assert run.best is not None


def torn(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-9])


def changed(folder: Path) -> None:
    (folder / "metrics.json").write_text("{}")


def gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def other_plan(folder: Path) -> None:
    shutil.rmtree(folder)
    unfinished(folder)
    (folder / "plan.yaml").write_text("branches: [1, 2")


def null_plan(folder: Path) -> None:
    shutil.rmtree(folder)
    unfinished(folder)
    (folder / "plan.yaml").write_text("{backbone: 3, data: {kind: x}, branches: null}")


@pytest.mark.parametrize("damage", [torn, changed, gone, other_plan, null_plan])
def test_an_odd_folder_is_listed_with_its_fault_among_the_others(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(finished(tmp_path / "a" / "odd"))
    finished(tmp_path / "b" / "good")
    odd, good = list_runs(tmp_path).runs
    assert (odd.name, odd.state) == ("a/odd", "damaged")
    assert odd.step
    assert good.state == "finished"
    assert "a/odd: damaged, " in str(list_runs(tmp_path))


def test_a_folder_that_is_not_a_run_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "manifest.json").write_text('{"manifest_version": 3}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "manifest.json").write_text("[]")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    finished(tmp_path / "1" / "2" / "3" / "4")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list_runs(tmp_path).runs == ()
    assert str(list_runs(tmp_path)) == f"no runs in {tmp_path}"


def test_a_model_without_a_plan_is_listed_as_such(tmp_path: Path) -> None:
    with changing(tmp_path / "saved", RUN, {"cuts": [0], "trials": [], "failed": [0]}):
        pass
    run = one(tmp_path)
    assert (run.state, run.cuts, run.trials, run.failed) == ("model", 1, 1, 1)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        list_runs(tmp_path / "nowhere")


def test_the_verb_prints_a_table_or_one_document(tmp_path: Path) -> None:
    finished(tmp_path / "first")
    done = CliRunner().invoke(app, ["runs", str(tmp_path), "--json"])
    assert json.loads(done.stdout)["runs"][0]["best"]["value"] == 0.75
    assert CliRunner().invoke(app, ["runs", str(tmp_path)]).stdout.split()[0] == "run"


def test_nothing_in_a_listed_folder_changes(tmp_path: Path) -> None:
    finished(tmp_path / "first")
    unfinished(tmp_path / "second")
    before = sorted(tmp_path.rglob("*"))
    assert isinstance(list_runs(tmp_path), Listing)
    assert sorted(tmp_path.rglob("*")) == before
