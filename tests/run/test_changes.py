"""What a kill of `train` or `evaluate` leaves of a run folder, and what repairs a damaged one."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from offramp.errors import BundleError
from offramp.multiexit import MultiExit
from offramp.run.plan import Plan, load_plan
from offramp.run.steps import evaluate, train
from offramp.run.stored import RUN_NAMES, load_result
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import MANIFEST, RUN

MomentsOf = Callable[[Path, Callable[[], object]], list[Path]]

PLAN = Plan.model_validate(
    {
        "backbone": {"name": "torchvision:squeezenet1_1", "num_outputs": 10},
        "data": {"kind": "fashion_mnist", "image_size": 32, "limit": 40},
        "branches": {"features.4": [{"kind": "conv", "filters": 2}]},
        "train": {"lr": 1e-3, "epochs": 1, "batch_size": 20},
        "evaluate": {"timing_repeats": 0, "bootstrap_draws": 20},
    }
)


def slow_clock() -> Callable[[], float]:
    ticks = count(step=100)
    return lambda: next(ticks)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(PLAN, folder)
    with changing(folder, RUN) as staged:
        (staged / "policy.json").write_text("{}")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def state_of(folder: Path) -> bytes:
    """The manifest, after every file was found to be what it says."""
    names = read_folder(folder, RUN).manifest["files"]
    assert len(read_folder(folder, RUN, names).files) == len(names) > 8
    return (folder / MANIFEST).read_bytes()


@pytest.mark.slow
def test_a_killed_evaluation_leaves_the_old_run_or_the_new(
    run: Path, moments_of: MomentsOf
) -> None:
    old = state_of(run)
    moments = moments_of(run, lambda: evaluate(run, clock=slow_clock()))
    new = state_of(run)
    seen = [state_of(moment) == new for moment in moments]
    assert all(state_of(moment) in (old, new) for moment in moments)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}
    assert "policy.json" in json.loads(new)["files"]
    for moment in (moments[0], moments[seen.index(True)], moments[-1]):
        assert evaluate(moment).comparison.rows == load_result(run).comparison.rows


@pytest.mark.slow
def test_a_kill_at_the_end_of_training_leaves_no_run_or_a_whole_one(
    tmp_path: Path, moments_of: MomentsOf
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    seen = []
    for moment in moments_of(folder, lambda: train(PLAN, folder)):
        try:
            load_result(moment)
            seen.append(True)
        except BundleError as error:
            assert "is not a finished run" in str(error)  # noqa: PT017 either may come
            seen.append(False)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def _evaluate_and_die(folder: Path, operation: int) -> None:
    left = [operation]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and f"{folder}/" in str(args[0]):
            left[0] -= 1
        if left[0] == 0 and event != "os.kill":
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    evaluate(folder, clock=slow_clock())


@pytest.mark.slow
def test_processes_killed_while_they_evaluate_leave_one_state(run: Path) -> None:
    draw = random.Random(0)  # noqa: S311 not for secrets
    context = multiprocessing.get_context("spawn")
    codes = set()
    for _ in range(3):
        process = context.Process(target=_evaluate_and_die, args=(run, draw.randint(5, 60)))
        process.start()
        process.join()
        codes.add(process.exitcode)
        state_of(run)
    assert codes == {-signal.SIGKILL}
    evaluate(run)
    left = {path.name for path in run.iterdir() if path.name.startswith(".")}
    assert left <= {".lock"}


def keep_what_resumes(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == "outputs":
            shutil.rmtree(path)
        elif path.name not in ("plan.yaml", "work"):
            path.unlink()


def test_training_refuses_to_overwrite_what_no_run_of_ours_wrote(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(
        BundleError, match=r"contains outputs, report\.html, which would be overwritten"
    ):
        train(PLAN, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "report.html"}
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.slow
def test_the_names_that_training_refuses_are_those_a_run_writes(run: Path) -> None:
    names = {name.partition("/")[0] for name in read_folder(run, RUN).manifest["files"]}
    assert names == set(RUN_NAMES)


@pytest.mark.slow
def test_the_plan_of_what_an_interrupted_run_left_is_accepted(tmp_path: Path) -> None:
    def stop(what: str, *_: int) -> None:
        if what.startswith("taps"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(PLAN, tmp_path, progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"plan.yaml", "work"}
    assert train(PLAN, tmp_path).plan == PLAN


def test_a_run_without_its_plan_file_gets_it_back_from_the_manifest(run: Path) -> None:
    before = (run / "plan.yaml").read_text()
    (run / "plan.yaml").unlink()
    train(PLAN, run)
    assert (run / "plan.yaml").read_text() == before


@pytest.mark.slow
def test_a_plan_file_that_cannot_be_read_is_reported_in_whole_sentences(run: Path) -> None:
    (run / "plan.yaml").write_text("backbone: [")
    with pytest.raises(
        BundleError, match=r"is not valid YAML[\s\S]*\nIt is the plan of a finished"
    ):
        evaluate(run)
    (run / "plan.yaml").unlink()  # as the error says
    evaluate(run)
    assert load_plan(run / "plan.yaml") == PLAN


def test_a_model_is_not_saved_over_a_run(run: Path) -> None:
    before = state_of(run)
    with pytest.raises(BundleError, match=r"holds a run of `offramp train`.*another folder"):
        MultiExit.load(run).save(run)
    assert state_of(run) == before


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.json", "environment.json", "outputs/trials.npz"])
def test_evaluate_writes_damaged_results_again_as_the_error_says(run: Path, name: str) -> None:
    damaged(run / name)
    with pytest.raises(BundleError, match=r"`offramp evaluate` on this folder to write it again"):
        read_folder(run, RUN, [name])
    evaluate(run)
    load_result(run)
    read_folder(run, RUN, [name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST])
def test_a_damaged_model_or_manifest_is_trained_again_as_the_error_says(
    run: Path, name: str
) -> None:
    whole = load_result(run).model.digest()
    damaged(run / name)
    with pytest.raises(BundleError, match=r"except plan\.yaml and work, and repeat the same"):
        train(PLAN, run)
    keep_what_resumes(run)
    assert train(PLAN, run).model.digest() == whole


@pytest.fixture
def commented(run: Path) -> Iterator[Path]:
    path = run / "plan.yaml"
    path.write_text(f"# my notes\n{path.read_text()}")
    yield run
    assert path.read_text().startswith("# my notes")


def test_a_comment_in_the_plan_of_a_run_changes_nothing(commented: Path) -> None:
    result = train(PLAN, commented)
    assert result.plan == PLAN


def test_a_plan_written_before_a_setting_existed_is_the_same_plan(run: Path) -> None:
    path = run / "plan.yaml"
    lines = path.read_text().splitlines()
    older = [line for line in lines if "lr_patience" not in line and "threshold" not in line]
    assert len(older) == len(lines) - 2
    path.write_text("\n".join(older))
    assert train(PLAN, run).plan == PLAN


def test_a_run_with_a_setting_of_another_version_is_refused_with_its_name(run: Path) -> None:
    manifest = dict(read_folder(run, RUN).manifest)
    manifest["plan"]["train"]["warmup"] = 3
    names = manifest["files"]
    with changing(run, RUN, manifest, keep=names):
        pass
    with pytest.raises(BundleError, match=r"another version of offramp.*train\.warmup"):
        evaluate(run)


@pytest.mark.slow
def test_evaluating_keeps_how_long_training_took(run: Path) -> None:
    before = json.loads((run / "environment.json").read_text())["seconds"]
    evaluate(run, clock=slow_clock())
    after = json.loads((run / "environment.json").read_text())["seconds"]
    assert after["training"] == before["training"]
    assert after["evaluation"] == 100
    assert f"training {after['training']:g}" in (run / "report.html").read_text()


def test_a_folder_with_only_a_model_is_not_a_run(run: Path, tmp_path: Path) -> None:
    load_result(run).model.save(tmp_path / "model")
    with pytest.raises(BundleError, match="not a run of a plan"):
        evaluate(tmp_path / "model")
