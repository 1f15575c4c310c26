"""`offramp calibrate --without`: policies for samples that lack an input."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.errors import BundleError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import load_policies
from offramp.run.listing import list_runs
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import RUN

LOOSE = ("--max-drop", "0.5")


def calibrate(place: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", str(place), *words])


def told(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def lacking(run: Path, made_up: Callable[[int], ExitOutputs]) -> Path:
    """The run, with outputs of other exits without its second input, `sound`."""
    with changing(run, RUN) as staged:
        for seed, split in enumerate(("calibration", "test")):
            rows = dataclasses.replace(
                made_up(7 + seed), names=("V1", "AV1"), source={"without": ["sound"]}
            )
            rows.save(staged / "outputs" / f"{split}-without-1.npz")
    return run


@pytest.mark.parametrize("name", ["sound", "1"])
def test_a_policy_without_an_input_is_kept_beside_the_runs_own(lacking: Path, name: str) -> None:
    told(calibrate(lacking, *LOOSE))
    own = (lacking / "policy.json").read_bytes()
    text = told(calibrate(lacking, *LOOSE, "--without", name))
    file = lacking / "policy-without-1.json"
    assert text.endswith(f"written: {file}\n")
    assert "; for samples without sound, whose final exit is AV1\n" in text
    assert "measured on the 700 samples of the test split" in text
    [policy] = load_policies(read_folder(lacking, RUN, [file.name]).files[file.name])
    assert (policy.names, policy.without) == (("V1", "AV1"), ("sound",))
    assert policy.promise is not None
    assert (lacking / "policy.json").read_bytes() == own


def test_a_menu_without_an_input_replaces_the_earlier_policy(lacking: Path) -> None:
    told(calibrate(lacking, *LOOSE, "--without", "sound"))
    again = told(calibrate(lacking, *LOOSE, "--max-drop", "0.6", "--without", "sound"))
    assert "replaced: a policy with the promise that accuracy falls by at most 50 points" in again
    with pytest.raises(PlanError, match="give --replace"):
        told(calibrate(lacking, "--budget", "60", "--without", "sound"))
    assert len(load_policies(lacking / "policy-without-1.json")) == 2


def test_the_policy_without_an_input_can_go_to_another_file(lacking: Path, tmp_path: Path) -> None:
    told(calibrate(lacking, *LOOSE, "--without", "sound", "--out", str(tmp_path / "mine.json")))
    assert load_policies(tmp_path / "mine.json")[0].without == ("sound",)
    assert not (lacking / "policy-without-1.json").exists()
    with pytest.raises(PlanError, match="is part of the run"):
        told(
            calibrate(lacking, *LOOSE, "--without", "sound", "--out", str(lacking / "policy.json"))
        )


def test_outputs_without_an_input_take_no_option(lacking: Path, tmp_path: Path) -> None:
    file, out = lacking / "outputs" / "calibration-without-1.npz", tmp_path / "mine.json"
    told(calibrate(file, *LOOSE, "--out", str(out)))
    assert load_policies(out)[0].without == ("sound",)
    with pytest.raises(PlanError, match="is not a folder"):
        told(calibrate(file, *LOOSE, "--without", "sound"))


def test_a_run_without_such_answers_says_what_it_has(lacking: Path) -> None:
    with pytest.raises(BundleError, match="without sound, but not without 'picture'"):
        told(calibrate(lacking, *LOOSE, "--without", "picture"))


def test_a_run_whose_exits_need_all_inputs_says_so(run: Path) -> None:
    with pytest.raises(
        BundleError, match="has no answers to calibration samples that lack an input"
    ):
        told(calibrate(run, *LOOSE, "--without", "sound"))


def test_a_single_exit_that_can_do_without_leaves_nothing_to_calibrate(
    lacking: Path, made_up: Callable[[int], ExitOutputs], tmp_path: Path
) -> None:
    rows = made_up(3)
    single = ExitOutputs(
        outputs=rows.outputs[:1],
        labels=rows.labels,
        stage_flops=rows.stage_flops[:1],
        branch_flops=rows.branch_flops[1:],
        names=("V1",),
        source={"without": ["sound"]},
    )
    single.save(tmp_path / "single.npz")
    with pytest.raises(ShapeError, match="without sound only the exit 'V1' answers"):
        told(calibrate(tmp_path / "single.npz", *LOOSE))


def test_other_verbs_refuse_it_for_outputs_with_all_inputs(lacking: Path) -> None:
    told(calibrate(lacking, *LOOSE, "--without", "sound"))
    file = str(lacking / "policy-without-1.json")
    words = ("--rate", "9", "--deadline-ms", "30", "--policy", file)
    refused = CliRunner().invoke(app, ["simulate", str(lacking), *words])
    assert "It is for samples without sound: use outputs" in str(refused.exception)
    rows = str(lacking / "outputs" / "test-without-1.npz")
    assert "for samples without sound" in told(CliRunner().invoke(app, ["simulate", rows, *words]))


def test_the_policies_of_a_run_are_listed_with_what_they_do_without(lacking: Path) -> None:
    told(calibrate(lacking, *LOOSE))
    told(calibrate(lacking, *LOOSE, "--without", "sound", "--json"))
    with changing(lacking, RUN) as staged:
        (staged / "metrics.json").write_text(json.dumps({}))
    with changing(
        lacking,
        RUN,
        {"cuts": [], "trials": [], "failed": []},
        keep=["policy.json", "policy-without-1.json", "metrics.json"],
    ):
        pass
    [listed] = list_runs(lacking).runs
    assert listed.policies == ("max_drop 0.5", "max_drop 0.5 without sound")
