import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.data.augment import Augment
from offramp.errors import BundleError, DataError, OfframpError, PlanError
from offramp.multiexit.model import MultiExit
from offramp.outputs import ExitOutputs
from offramp.run.plan import Plan
from offramp.run.prepare import prepare_run
from offramp.run.results import RunResult
from offramp.run.steps import evaluate, train
from offramp.run.stored import load_result
from offramp.storage.folder import read_folder
from offramp.storage.manifest import RUN

SETTINGS = {
    "backbone": {"name": "torchvision:squeezenet1_1", "num_outputs": 10},
    "data": {"kind": "fashion_mnist", "image_size": 48, "limit": 70},
    "branches": {
        "features.4": [
            {"kind": "slvit", "patch": 11, "dim": 4, "heads": 1},
            {"kind": "conv", "filters": 2},
        ]
    },
    "train": {"lr": 1e-3, "seeds": [0, 1], "epochs": 1, "batch_size": 35},
    "evaluate": {
        "rival_sizes": [40],
        "rival_images": 64,
        "timing_repeats": 2,
        "bootstrap_draws": 50,
    },
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.model_validate(SETTINGS)


@pytest.fixture(scope="module")
def result(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(plan, tmp_path_factory.mktemp("runs") / "run")


def test_the_run_folder_holds_the_documented_files(result: RunResult) -> None:
    expected = {"manifest.json", "plan.yaml", "model.safetensors", "metrics.json"}
    expected |= {"environment.json", "report.html", "tradeoff.png", "tradeoff.svg"}
    assert expected <= {path.name for path in result.folder.iterdir()}
    listed = {path.stem for path in (result.folder / "outputs").iterdir()}
    assert listed == {"validation", "calibration", "test", "trials", "rivals"}
    listed = set(read_folder(result.folder, RUN).manifest["files"])
    assert listed == expected - {"manifest.json", "plan.yaml"} | {
        f"outputs/{name}.npz" for name in ("validation", "calibration", "test", "trials", "rivals")
    }


def test_the_table_covers_every_branch_and_rival(result: RunResult) -> None:
    assert len(result.comparison.rows) == 2
    assert all(row.seeds == (0, 1) for row in result.comparison.rows)
    assert len(result.comparison.differences) == 1
    assert {row.rival.resolution for row in result.comparison.rivals} == {40}


def test_the_stored_outputs_are_those_of_the_stored_model(result: RunResult) -> None:
    model = MultiExit.load(result.folder)
    stored = ExitOutputs.load(result.folder / "outputs" / "test.npz")
    again = model.collect(prepare_run(result.plan).splits.test, split="test")
    np.testing.assert_array_equal(again.outputs, stored.outputs)
    assert stored.source is not None
    assert stored.source["model"] == model.digest() == result.model.digest()


def test_the_chosen_branch_is_best_on_validation_and_named_with_its_seed(result: RunResult) -> None:
    best = max(trial.validation_score for trial in result.model.trials)
    chosen = result.model.chosen["features.4"]
    assert chosen.validation_score == best
    said = f"features.4: {chosen.label} (seed {chosen.seed})."
    assert (
        f"with the highest validation accuracy at each cut (ties go to the lower loss): {said}"
        in (str(result))
    )
    assert len(result.model.trials) == 4
    alone = MultiExit(result.model.backbone, result.model.chosen, [chosen])
    assert alone.exits_text == f"features.4: {chosen.label}"


def test_a_finished_run_is_read_and_not_repeated(result: RunResult, plan: Plan) -> None:
    told: list[str] = []
    again = train(plan, result.folder, progress=lambda what, *_: told.append(what))
    assert told == []
    assert str(again) == str(result)


@pytest.mark.slow
def test_a_finished_run_tries_a_branch_again_that_ran_out_of_memory(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, full = torch.optim.Adam.step, [torch.OutOfMemoryError("full")]

    def first_fails(adam: torch.optim.Adam) -> None:
        if full:
            raise full.pop()
        step(adam)

    monkeypatch.setattr(torch.optim.Adam, "step", first_fails)
    first = train(plan, tmp_path / "run")
    assert [failed.reason for failed in first.model.failed] == ["out of memory in epoch 1: full"]
    second = train(plan, tmp_path / "run")
    assert not second.model.failed
    assert len(second.model.trials) == 4
    assert load_result(tmp_path / "run").model.digest() == second.model.digest()


@pytest.mark.slow
def test_a_run_of_which_only_plan_and_work_are_left_comes_to_the_same_model(
    result: RunResult, plan: Plan, tmp_path: Path
) -> None:
    other = train(plan, tmp_path / "run")
    (tmp_path / "kept").mkdir()
    for name in ("plan.yaml", "work"):
        (tmp_path / "run" / name).rename(tmp_path / "kept" / name)
    third = train(plan, tmp_path / "kept")
    assert result.model.digest() == other.model.digest() == third.model.digest()


def test_another_plan_does_not_touch_the_run(result: RunResult, plan: Plan) -> None:
    other = plan.model_copy(update={"train": plan.train.model_copy(update={"epochs": 2})})
    before = {path: path.read_bytes() for path in result.folder.iterdir() if path.is_file()}
    with pytest.raises(PlanError, match=r"another plan; the two plans differ in train\.epochs\."):
        train(other, result.folder)
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_evaluating_again_gives_the_same_answers(
    result: RunResult, plan: Plan, tmp_path: Path
) -> None:
    first = train(plan, tmp_path / "run")
    again = evaluate(tmp_path / "run")
    accuracies = [row.value for row in first.comparison.rows]
    assert [row.value for row in again.comparison.rows] == accuracies
    assert again.model.digest() == result.model.digest()


@pytest.mark.parametrize("name", ["outputs/test.npz", "metrics.json", "plan.yaml"])
def test_a_changed_file_of_a_finished_run_is_named(result: RunResult, name: str) -> None:
    path = result.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    try:
        with pytest.raises(BundleError, match=path.name.replace(".", r"\.")):
            load_result(result.folder)
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
def test_a_finished_run_whose_pictures_changed_is_not_passed_off_as_done(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "calibration", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 256, (48, 48, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    photos = Plan.model_validate(
        {
            **SETTINGS,
            "backbone": {"name": "torchvision:squeezenet1_1", "num_outputs": 2},
            "data": {
                "kind": "image_folder",
                "root": str(tmp_path / "photos"),
                "image_size": 48,
            },
            "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
        }
    )
    train(photos, tmp_path / "run")
    train(photos, tmp_path / "run")
    (tmp_path / "photos" / "train" / "ant" / "0.png").unlink()
    with pytest.raises(DataError, match="the train data of its plan have changed"):
        train(photos, tmp_path / "run")
    with pytest.raises(DataError, match="the train data of its plan have changed"):
        evaluate(tmp_path / "run")


def test_an_unfinished_run_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a finished run"):
        evaluate(tmp_path)


def test_mistakes_that_only_the_parts_show_are_reported_together() -> None:
    wrong = Plan.model_validate(
        {
            **SETTINGS,
            "data": {"kind": "fashion_mnist", "root": "/nowhere"},
            "branches": {
                "featres.4": [{"kind": "conv"}],
                "features.4": [{"kind": "slvit", "patch": 7}],
            },
        }
    )
    with pytest.raises(PlanError) as caught:
        prepare_run(wrong)
    message = str(caught.value)
    assert "3 mistakes" in message
    assert "data: /nowhere" in message
    assert "branches.featres.4: " in message
    assert "features.4" in message


def test_mistakes_of_different_kinds_are_reported_together(plan: Plan) -> None:
    wrong = Plan.model_validate(
        {
            **SETTINGS,
            "backbone": {"name": "torchvision:squeezenet1_1", "num_outputs": 9},
            "branches": {
                "features.44": [{"kind": "conv"}],
                "features.4": [{"kind": "slvit", "patch": 7}],
            },
        }
    )
    with pytest.raises(PlanError) as caught:
        prepare_run(wrong)
    message = str(caught.value)
    assert "3 mistakes" in message
    assert "patch=7 does not divide" in message
    assert "branches.features.44" in message
    assert "9 outputs" in message


def test_a_refused_plan_does_not_keep_the_folder(plan: Plan, tmp_path: Path) -> None:
    few = plan.backbone.model_copy(update={"num_outputs": 9})
    with pytest.raises(OfframpError):
        train(plan.model_copy(update={"backbone": few}), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_measured_times_are_kept_with_their_spread(result: RunResult) -> None:
    timings = json.loads((result.folder / "metrics.json").read_text())["timings_ms"]
    assert len(timings["stages"]) == 2
    assert all(t["low_ms"] <= t["median_ms"] <= t["high_ms"] for t in timings["branches"])


def test_a_single_mistake_keeps_its_own_error(plan: Plan) -> None:
    wrong = plan.model_copy(
        update={"backbone": plan.backbone.model_copy(update={"name": "torchvision:resnet81"})}
    )
    with pytest.raises(OfframpError, match="resnet18"):
        prepare_run(wrong)


def test_a_patch_that_does_not_fit_is_named_with_its_cut(plan: Plan) -> None:
    spec = plan.branches["features.4"][0].model_copy(update={"patch": 4})
    with pytest.raises(OfframpError, match=r"branches\.features\.4\.slvit.*: patch=4 does not"):
        prepare_run(plan.model_copy(update={"branches": {"features.4": (spec,)}}))


def test_settings_refused_in_training_do_not_keep_the_folder_either(
    plan: Plan, tmp_path: Path
) -> None:
    augment = Augment(flip=True)
    refused = plan.train.model_copy(update={"how": "cached", "augment": augment})
    with pytest.raises(PlanError, match="how='fused'"):
        train(plan.model_copy(update={"train": refused}), tmp_path)
    assert not (tmp_path / "plan.yaml").exists()


def test_a_class_count_that_disagrees_is_refused(plan: Plan) -> None:
    few = plan.backbone.model_copy(update={"num_outputs": 9})
    with pytest.raises(OfframpError, match="9"):
        prepare_run(plan.model_copy(update={"backbone": few}))


def test_threads_are_put_back_even_when_stopped(result: RunResult) -> None:
    before = torch.get_num_threads()

    def stop(*_: object) -> None:
        assert torch.get_num_threads() == before + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(result.folder, threads=before + 1, progress=stop)
    assert torch.get_num_threads() == before


def _keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


def test_stored_numbers_are_under_measure_and_value(result: RunResult) -> None:
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["measure"] == metrics["comparison"]["measure"] == "accuracy"
    for rows in (metrics["comparison"]["rows"], metrics["exits"]["exits"], metrics["rivals"]):
        assert all(0 <= row["value"] <= 1 for row in rows)
    assert not _keys(metrics) & {"accuracy", "mae", "MAE"}


def test_a_cut_called_final_is_refused_before_anything_is_trained(
    plan: Plan, tmp_path: Path
) -> None:
    branches = {"final": plan.branches["features.4"]}
    cuts = {"final": {"taps": ("features.4",)}}
    wrong = Plan.model_validate(plan.model_dump() | {"branches": branches, "cuts": cuts})
    with pytest.raises(OfframpError, match="'final'"):
        train(wrong, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
