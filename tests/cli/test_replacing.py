"""What stands in the place of a new policy: named, and never lost in silence."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.errors import NoPolicyError, PlanError
from offramp.policy import ExitPolicy, Score, load_policies

PROMISE = "a policy with the promise that accuracy falls by at most 50 points"
SIMULATED = ("--rate", "9", "--deadline-ms", "30")
LOOSE, TIGHT, BUDGET = ("--max-drop", "0.5"), ("--max-drop", "0.000001"), ("--budget", "60")


def calibrate(place: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", str(place), *words])


def told(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.stdout


def shown(result: Result) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.fixture(params=["in the run", "named in the run", "in a file"])
def where(request: pytest.FixtureRequest, run: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """The file of a policy, and the options that choose it."""
    if request.param == "in the run":
        return run / "policy.json", []
    if request.param == "named in the run":
        return run / "policy.json", ["--out", str(run / "policy.json")]
    return tmp_path / "mine.json", ["--out", str(tmp_path / "mine.json")]


def test_the_first_policy_replaces_nothing(run: Path, where: tuple[Path, list[str]]) -> None:
    file, out = where
    assert told(calibrate(run, *BUDGET, *out)).endswith(f"written: {file}\n")
    file.unlink()
    assert shown(calibrate(run, *BUDGET, *out, "--json"))["replaced"] is None


def test_the_policy_that_is_replaced_is_named(run: Path, where: tuple[Path, list[str]]) -> None:
    file, out = where
    told(calibrate(run, *BUDGET, *out))
    old = load_policies(file)[0].as_json()
    assert shown(calibrate(run, *LOOSE, *out, "--json"))["replaced"] == [old]
    assert f"replaced: {PROMISE}" in told(calibrate(run, *LOOSE, *out))
    assert "replaced: a policy without a promise" not in told(calibrate(run, *LOOSE, *out))


def test_a_menu_that_is_replaced_is_named_by_its_limits(run: Path) -> None:
    told(calibrate(run, *LOOSE, "--max-drop", "0.6"))
    text = told(calibrate(run, *LOOSE))
    assert "replaced: a menu of policies that promise a max_drop of 0.5, 0.6" in text
    assert "replaced: a menu" not in told(calibrate(run, *LOOSE))


def test_a_promise_is_given_up_only_with_replace(run: Path, where: tuple[Path, list[str]]) -> None:
    file, out = where
    told(calibrate(run, *LOOSE, *out))
    before = file.read_bytes()
    with pytest.raises(PlanError, match=f"holds {PROMISE}.*--out FILE, or give --replace"):
        told(calibrate(run, *BUDGET, *out))
    assert file.read_bytes() == before
    assert f"replaced: {PROMISE}" in told(calibrate(run, *BUDGET, *out, "--replace"))
    assert load_policies(file)[0].promise is None


def test_the_promises_of_a_menu_are_given_up_only_with_replace(run: Path) -> None:
    told(calibrate(run, *LOOSE, "--max-drop", "0.6"))
    with pytest.raises(PlanError, match=r"a menu of policies .*--replace"):
        told(calibrate(run, *BUDGET))
    assert len(load_policies(run / "policy.json")) == 2


def test_a_policy_without_a_promise_is_replaced_by_another(run: Path) -> None:
    told(calibrate(run, *BUDGET))
    assert "replaced: a policy without a promise" in told(calibrate(run, "--budget", "90"))


def test_the_advice_of_the_refusal_works(run: Path, tmp_path: Path) -> None:
    told(calibrate(run, *LOOSE))
    told(calibrate(run, *BUDGET, "--out", str(tmp_path / "elsewhere.json")))
    told(calibrate(run, *BUDGET, "--replace"))


@pytest.mark.parametrize("kind", ["other content", "a score of the user's own"])
def test_a_file_that_cannot_be_read_may_hold_a_promise(
    run: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "mine.json"
    if kind == "other content":
        file.write_text("exit,share\n0,0.3\n")
    else:
        own = Score("gap", lambda seen: seen.outputs[-1].max(1))
        ExitPolicy(score=own, names=("exit 0", "final"), thresholds=(0.5,)).save(file)
    before = file.read_bytes()
    with pytest.raises(PlanError, match=r"something that cannot be read as a policy.*--replace"):
        told(calibrate(run, *BUDGET, "--out", str(file)))
    assert file.read_bytes() == before
    text = told(calibrate(run, *LOOSE, "--out", str(file)))
    assert "replaced: something that cannot be read as a policy" in text


def test_a_failed_request_names_the_policy_that_stays(
    run: Path, where: tuple[Path, list[str]]
) -> None:
    file, out = where
    with pytest.raises(NoPolicyError, match=r"^no policy with (?!.*was not changed)"):
        told(calibrate(run, *TIGHT, *out))
    told(calibrate(run, *LOOSE, *out))
    before = file.read_bytes()
    failed = calibrate(run, *TIGHT, *out, "--json")
    assert isinstance(failed.exception, NoPolicyError)
    assert f"{file} was not changed; it holds {PROMISE}" in str(failed.exception)
    assert str(shown(failed)["reason"]) == str(failed.exception)
    assert shown(failed)["closest"] is not None
    assert shown(failed)["num_samples_needed"] is not None
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "spelling", ["{run}/policy.json", "{run}/../run/policy.json", "link/policy.json"]
)
def test_a_run_accepts_its_policy_however_out_spells_the_path(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(run)
    told(calibrate(run, *LOOSE, "--out", spelling.format(run=run)))
    assert "policy of" in told(CliRunner().invoke(app, ["simulate", str(run), *SIMULATED]))


@pytest.mark.parametrize("name", ["policy.json", "manifest.json", "outputs/test.npz"])
@pytest.mark.parametrize("outputs", ["run/outputs/calibration.npz", "other"])
def test_a_file_of_a_run_is_not_replaced_from_outside(
    run: Path, tmp_path: Path, outputs: str, name: str
) -> None:
    shutil.copytree(run, tmp_path / "other")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    advice = rf"--out: `offramp calibrate {run}`.*choose another --out FILE"
    with pytest.raises(PlanError, match=advice):
        told(calibrate(tmp_path / outputs, *LOOSE, "--out", str(run / name)))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_without_out_a_run_is_not_changed_from_inside(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    with pytest.raises(PlanError, match=r"policy\.json is part of the run in"):
        told(calibrate(Path("outputs/calibration.npz"), *LOOSE))
    assert not Path("policy.json").exists()


def test_policies_of_other_names_may_lie_in_a_run(run: Path) -> None:
    told(calibrate(run, *LOOSE, "--out", str(run / "loose.json")))
    words = ["simulate", str(run), *SIMULATED, "--policy", str(run / "loose.json")]
    assert "loose.json" in told(CliRunner().invoke(app, words))
