"""What a kill of `offramp calibrate` leaves of a run folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offramp.cli import app
from offramp.errors import BundleError
from offramp.outputs import ExitOutputs
from offramp.policy import load_policies
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import RUN


def calibrate(run: Path, budget: int) -> None:
    done = CliRunner().invoke(app, ["calibrate", str(run), "--budget", str(budget)])
    assert done.exit_code == 0, done.exception


def test_parts_of_a_promise_have_the_names_of_the_classes(run: Path) -> None:
    words = ["calibrate", str(run), "--max-drop", "0.5", "--within", "class"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert {"class cat", "class dog", "class owl", "class eel"} <= {
        line[:9] for line in done.stdout.splitlines()
    }


def test_a_killed_calibration_leaves_the_old_policy_or_the_new(
    run: Path, moments_of: Callable[[Path, Callable[[], object]], list[Path]]
) -> None:
    calibrate(run, 60)
    old = read_folder(run, RUN, ["policy.json"]).files["policy.json"]
    moments = moments_of(run, lambda: calibrate(run, 90))
    new = read_folder(run, RUN, ["policy.json"]).files["policy.json"]
    assert old != new
    seen = []
    for moment in moments:
        names = ("policy.json", "outputs/calibration.npz", "outputs/test.npz")
        found = read_folder(moment, RUN, names).files["policy.json"]
        assert found in (old, new)
        assert len(load_policies(moment / "policy.json")) == 1
        seen.append(found == new)
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def test_a_policy_is_not_stored_if_its_outputs_were_replaced_in_the_meantime(
    run: Path, made_up: Callable[[int], ExitOutputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(run, 60)
    before = (run / "policy.json").read_bytes()
    load = ExitOutputs.load

    def load_while_another_evaluates(path: Path | bytes) -> ExitOutputs:
        with changing(run, RUN, keep=["policy.json"], content={"class_names": []}) as staged:
            for seed, split in enumerate(("calibration", "test")):
                made_up(seed + 50).save(staged / "outputs" / f"{split}.npz")
        return load(path)

    monkeypatch.setattr(ExitOutputs, "load", load_while_another_evaluates)
    done = CliRunner().invoke(app, ["calibrate", str(run), "--budget", "90"])
    assert isinstance(done.exception, BundleError)
    assert "another process replaced outputs/calibration.npz" in str(done.exception)
    assert (run / "policy.json").read_bytes() == before
    monkeypatch.undo()
    calibrate(run, 90)


def test_a_changed_policy_of_a_run_is_refused_with_advice_that_works(run: Path) -> None:
    calibrate(run, 60)
    path = run / "policy.json"
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    done = CliRunner().invoke(app, ["simulate", str(run), "--rate", "1", "--deadline-ms", "9"])
    assert isinstance(done.exception, BundleError)
    assert "Run `offramp calibrate` on this folder to write it again" in str(done.exception)
    calibrate(run, 60)
    assert read_folder(run, RUN, ["policy.json"]).files["policy.json"] == path.read_bytes()
