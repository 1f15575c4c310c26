"""The policy that simulate and watch use: picked by a limit, and named."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.errors import PlanError
from offramp.policy import load_policies

VERBS = {"simulate": ("--rate", "50", "--deadline-ms", "9", "--requests", "500"), "watch": ()}
LIMITS = ("0.5", "0.6")


def called(verb: str, place: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [verb, str(place), *VERBS[verb], *words], input="1\n0\n")


def policies_told(result: Result) -> dict[str, object]:
    if result.exception is not None:
        raise result.exception
    found: dict[str, object] = json.loads(result.stdout)["policy"]
    return found


@pytest.fixture
def menu(run: Path) -> Path:
    """A run with a menu."""
    words = [word for limit in LIMITS for word in ("--max-drop", limit)]
    done = CliRunner().invoke(app, ["calibrate", str(run), *words])
    assert done.exit_code == 0, done.exception
    return run


@pytest.fixture
def single(run: Path) -> Path:
    """A run with one policy."""
    done = CliRunner().invoke(app, ["calibrate", str(run), "--max-drop", "0.5"])
    assert done.exit_code == 0, done.exception
    return run


@pytest.mark.parametrize("verb", VERBS)
def test_the_policy_of_a_run_is_named_with_its_file_and_promise(verb: str, single: Path) -> None:
    file = single / "policy.json"
    text = called(verb, single).stdout
    assert f"policy of {file}: max_softmax" in text
    assert "accuracy falls by at most 50 points, with 95 % confidence" in text
    [policy] = load_policies(file)
    told = policies_told(called(verb, single, "--json"))
    assert told == {"file": str(file), "policies": [policy.as_json()]}


@pytest.mark.parametrize("verb", VERBS)
def test_a_policy_in_a_file_is_named_in_place_of_the_runs(
    verb: str, single: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    CliRunner().invoke(app, ["calibrate", str(single), "--budget", "60", "--out", str(other)])
    text = called(verb, single, "--policy", str(other)).stdout
    assert f"policy of {other}: max_softmax" in text
    assert "no promise" in text
    assert "policy.json" not in text


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("limit", "place"), [("0.5", 0), ("0.55", 0), ("0.6", 1)])
def test_a_limit_picks_from_a_menu(verb: str, menu: Path, limit: str, place: int) -> None:
    told = policies_told(called(verb, menu, "--max-drop", limit, "--json"))
    assert told["policies"] == [load_policies(menu / "policy.json")[place].as_json()]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--max-drop", "0.4"), r"no policy for 0\.4; it has \[0\.5, 0\.6\]"),
        (("--max-rise", "1"), "no policy here promises max_rise"),
        (("--max-disagreement", "0.1"), "no policy here promises max_disagreement"),
    ],
)
def test_a_limit_that_no_policy_promises_is_refused(
    verb: str, menu: Path, words: tuple[str, ...], text: str
) -> None:
    with pytest.raises(PlanError, match=text):
        policies_told(called(verb, menu, *words))


@pytest.mark.parametrize("verb", VERBS)
def test_two_limits_are_wrong_usage(verb: str, menu: Path) -> None:
    assert called(verb, menu, "--max-drop", "0.5", "--max-rise", "1").exit_code == 2


def test_a_simulation_of_a_menu_names_all_its_policies(menu: Path) -> None:
    text = called("simulate", menu).stdout
    assert f"policies of {menu / 'policy.json'}:\n  max_softmax" in text
    assert all(f"by at most {points} points" in text for points in (50, 60))


def test_a_watch_of_a_menu_asks_which_policy_answered(menu: Path) -> None:
    with pytest.raises(PlanError, match=r"--max-drop 0\.5 or --max-drop 0\.6"):
        policies_told(called("watch", menu))
    assert called("watch", menu, "--max-drop", "0.6").exit_code == 0


def test_json_lines_of_a_watch_name_the_policy_at_the_end_and_text_on_standard_error(
    single: Path,
) -> None:
    result = called("watch", single, "--jsonl")
    [end] = map(json.loads, result.stdout.splitlines())
    assert end["policy"]["file"] == str(single / "policy.json")
    assert f"policy of {single / 'policy.json'}: max_softmax" in result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_promise_for_another_model_is_not_named(
    verb: str, single: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    content = json.loads((single / "policy.json").read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**content, "source": {"model": "another"}}))
    text = called(verb, single, "--policy", str(other)).stdout
    assert "no promise" in text
    assert any("the promise was dropped" in str(each.message) for each in recwarn.list)
