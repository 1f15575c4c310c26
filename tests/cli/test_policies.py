import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from offramp.calibration import Request
from offramp.cli import app
from offramp.cli.answers import read_answers
from offramp.cli.policies import calibrate
from offramp.errors import BundleError, DataError, NoPolicyError, PlanError
from offramp.outputs import ExitOutputs
from offramp.policy import load_policies


def made_up(samples: int, seed: int) -> ExitOutputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, samples)
    outputs = rng.normal(size=(3, samples, 5))
    ease = rng.normal(size=samples)
    for exit, skill in enumerate((3.0, 4.0, 5.0)):
        outputs[exit, np.arange(samples), labels] += np.maximum(skill + 2 * ease, 0)
    return ExitOutputs(
        outputs=outputs.astype(np.float32),
        labels=labels,
        stage_flops=np.array([20, 30, 50]),
        branch_flops=np.array([2, 3, 0]),
        stage_ms=np.array([1.0, 1.5, 2.5]),
        branch_ms=np.array([0.1, 0.2, 0.0]),
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outputs") / "calibration.npz"
    made_up(3000, 0).save(path)
    return path


@pytest.fixture(scope="module")
def policy(rows: Path) -> Path:
    path = rows.with_name("policy.json")
    told(run("calibrate", str(rows), "--max-drop", "0.03", "--out", str(path)))
    return path


def run(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, words, input=given)


def told(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_certified_policy_is_written_and_its_evidence_shown(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    text = told(run("calibrate", str(rows), "--max-drop", "0.03", "--out", str(path)))
    assert "accuracy falls by at most 3 points, with 95 % confidence" in text
    assert "the promise rests on the" in text
    [policy] = load_policies(path)
    assert policy.promise is not None
    assert policy.promise.limit == 0.03


def test_several_limits_make_a_menu(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "menu.json"
    limits = ("--max-drop", "0.05", "--max-drop", "0.03", "--max-drop", "0.000001")
    found = json.loads(told(run("calibrate", str(rows), *limits, "--out", str(path), "--json")))
    assert [each["promise"]["limit"] for each in found["policies"]] == [0.03, 0.05]
    assert json.loads(path.read_text())["declined"] == [0.000001]
    assert len(load_policies(path)) == 2


def test_a_budget_is_kept_and_comes_without_a_promise(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    assert "no promise" in told(run("calibrate", str(rows), "--budget", "60", "--out", str(path)))
    [policy] = load_policies(path)
    assert policy.cost(ExitOutputs.load(rows)).mean() <= 60


def test_a_request_that_cannot_be_certified_writes_no_policy(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(NoPolicyError):
        told(run("calibrate", str(rows), "--max-drop", "0.000001", "--out", str(path)))
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--max-drop", "0.1", "--cost", "joules"), "Invalid value for '--cost'"),
        (("--max-drop", "0.1", "--within", "label"), "Invalid value for '--within'"),
    ],
)
def test_wrong_usage_exits_with_2(rows: Path, words: tuple[str, ...], text: str) -> None:
    result = run("calibrate", str(rows), *words)
    assert result.exit_code == 2
    assert text in result.output


def test_every_setting_of_a_request_is_an_option_with_the_same_default() -> None:
    options = inspect.signature(calibrate).parameters
    for name, field in Request.model_fields.items():
        assert options[name].default == field.default


def test_limits_that_agree_in_six_digits_stay_apart(rows: Path, tmp_path: Path) -> None:
    limits = ("--max-drop", "0.05", "--max-drop", "0.0500000001")
    path = tmp_path / "menu.json"
    run("calibrate", str(rows), *limits, "--out", str(path))
    assert len(load_policies(path)) == 2
    words = ("--rate", "50", "--deadline-ms", "9", "--policy", str(path), "--requests", "500")
    text = told(run("simulate", str(rows), *words))
    assert "max_drop 0.05 " in text
    assert "max_drop 0.0500000001" in text


def test_no_goal_is_an_error_that_shows_one(rows: Path) -> None:
    with pytest.raises(PlanError, match=r"max_drop=0\.01"):
        told(run("calibrate", str(rows)))


def test_a_simulation_has_a_row_for_every_policy(rows: Path, policy: Path) -> None:
    words = ("--rate", "50", "--deadline-ms", "9", "--policy", str(policy), "--requests", "2000")
    result = run("simulate", str(rows), *words, "--arrivals", "bursts", "--json")
    assert "simulated in" in result.stderr
    found = json.loads(result.stdout)
    names = [row["name"] for row in found["rows"]]
    assert names[:2] == ["full network", "smallest exit"]
    assert names[2:] == ["max_drop 0.03", "max_drop 0.03, by the deadline"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--rate", "0"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--rate", "inf", "--arrivals", "bursts"), "--rate"),
        (("--burst-size", "0"), "--burst-size"),
        (("--uplink-ms", "-5"), "--uplink-ms"),
        (("--downlink-ms", "nan", "--jitter", "1"), "--downlink-ms"),
        (("--uplink-ms", "3", "--jitter", "-1"), "--jitter"),
        (("--uplink-ms", "3", "--jitter", "nan"), "--jitter"),
        (("--jitter", "-1"), "--jitter"),
        (("--requests", "0"), "--requests"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_traffic_that_cannot_be_is_wrong_usage_of_its_option(
    rows: Path, policy: Path, words: tuple[str, ...], option: str
) -> None:
    given = ("--rate", "50", "--deadline-ms", "9", "--policy", str(policy), *words)
    result = run("simulate", str(rows), *given)
    assert result.exit_code == 2
    assert f"Invalid value for {option}" in result.output.replace("'", "")


@pytest.mark.parametrize("verb", [("calibrate", "--max-drop", "0.03"), ("watch",)])
def test_a_negative_seed_is_wrong_usage(rows: Path, verb: tuple[str, ...]) -> None:
    assert run(*verb, str(rows), "--seed", "-1").exit_code == 2


def test_a_simulation_of_a_bare_file_asks_for_the_policy(rows: Path) -> None:
    with pytest.raises(PlanError, match="--policy"):
        told(run("simulate", str(rows), "--rate", "50", "--deadline-ms", "9"))


def test_a_file_that_is_not_a_policy_is_refused(rows: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[1, 2]")
    with pytest.raises(BundleError, match="calibrate"):
        told(run("watch", str(rows), "--policy", str(path), given="0\n"))


def test_answers_like_the_reference_give_no_alarm_and_others_do(rows: Path, policy: Path) -> None:
    [rule] = load_policies(policy)
    words = ("watch", str(rows), "--policy", str(policy))
    alike = rule.choose(made_up(1500, 7))
    quiet = run(*words, given="\n".join(map(str, alike)))
    assert quiet.exit_code == 0
    assert "exit mix: 1500 answers, e-value now" in quiet.output
    drifted = run(*words, given="\n".join(["2"] * 1500))
    assert drifted.exit_code == 3
    assert "drift in exit mix: the share of answers that leave at 'final'" in drifted.output


def test_shadow_answers_are_read_from_the_second_column(
    rows: Path, policy: Path, tmp_path: Path
) -> None:
    [rule] = load_policies(policy)
    stream = tmp_path / "answers.txt"
    stream.write_text("".join(f"{exit},1\n" for exit in rule.choose(made_up(400, 8))))
    result = run("watch", str(rows), "--policy", str(policy), "--stream", str(stream), "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["alarms"][0]["kind"] == "disagreement"


def test_a_watch_without_an_alarm_prints_one_document_with_the_reason(
    rows: Path, policy: Path
) -> None:
    result = run("watch", str(rows), "--policy", str(policy), "--json", given="2\n0\n")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["alarms"], found["answers"]) == ([], 2)
    assert found["reason"] == "no drift was found in the answers"


def test_json_lines_of_a_watch_are_its_alarms_and_the_end(rows: Path, policy: Path) -> None:
    given = "2\n" * 900 + "sure\n"
    result = run("watch", str(rows), "--policy", str(policy), "--jsonl", given=given)
    alarm, end = map(json.loads, result.stdout.splitlines())
    assert result.exit_code == 3
    assert (alarm["event"], alarm["kind"]) == ("alarm", "exit mix")
    assert (end["event"], end["answers"]) == ("end", 900)
    assert "line 901" in end["fault"]


def test_a_request_without_a_policy_prints_one_document_with_the_reason(
    rows: Path, tmp_path: Path
) -> None:
    words = ("--max-drop", "0.000001", "--out", str(tmp_path / "none.json"), "--json")
    result = run("calibrate", str(rows), *words)
    found = json.loads(result.stdout)
    assert found["error"] == "NoPolicyError"
    assert "no policy with an active early exit is certified" in found["reason"]
    assert found["num_samples_needed"] > 3000
    assert found["num_clusters_needed"] is None
    assert len(found["closest"]["thresholds"]) == 2


@pytest.mark.parametrize("mark", ["", "utf-8-sig", "utf-16"])
def test_a_stream_may_start_with_a_byte_order_mark(
    rows: Path, policy: Path, tmp_path: Path, mark: str
) -> None:
    stream = tmp_path / "answers.txt"
    stream.write_text("2\n0\n", encoding=mark or "utf-8")
    text = told(run("watch", str(rows), "--policy", str(policy), "--stream", str(stream)))
    assert "exit mix: 2 answers" in text


def test_piped_answers_may_start_with_a_byte_order_mark(rows: Path, policy: Path) -> None:
    text = told(run("watch", str(rows), "--policy", str(policy), given="\ufeff2\n0\n"))
    assert "exit mix: 2 answers" in text


def test_a_piped_line_that_is_not_utf_8_is_named(rows: Path, policy: Path) -> None:
    words = ["watch", str(rows), "--policy", str(policy)]
    with pytest.raises(DataError, match="line 2 of the stream is"):
        told(CliRunner().invoke(app, words, input=b"2\n\xff\n"))


def test_closed_standard_input_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match=r"standard input is closed.*--stream"):
        next(read_answers(None, [0, 2]))


def test_a_watch_can_look_at_one_answer_in_several(rows: Path, policy: Path) -> None:
    words = ("watch", str(rows), "--policy", str(policy), "--every", "3")
    text = told(run(*words, given="2\n" * 20))
    assert "one answer in 3. exit mix: 20 answers" in text


def test_a_line_that_is_not_an_answer_is_named(rows: Path, policy: Path) -> None:
    with pytest.raises(DataError, match="line 2 of the stream is 'sure'"):
        told(run("watch", str(rows), "--policy", str(policy), given="1\nsure\n"))


@pytest.mark.parametrize("line", ["0,1,1", "0,2", "0,-1", "0,", "0,sure", "9", "-1"])
@pytest.mark.parametrize("piped", [True, False])
def test_a_line_that_a_watch_cannot_read_is_named_by_its_number(
    rows: Path, policy: Path, tmp_path: Path, line: str, piped: bool
) -> None:
    stream = tmp_path / "answers.txt"
    stream.write_text(f"2\n\n{line}\n1\n")
    words = ("watch", str(rows), "--policy", str(policy))
    given = stream.read_text() if piped else None
    with pytest.raises(DataError, match=f"line 3 of the stream is '{line}'"):
        told(run(*words, *(() if piped else ("--stream", str(stream))), given=given))


def test_blank_lines_of_a_stream_are_skipped(rows: Path, policy: Path) -> None:
    text = told(run("watch", str(rows), "--policy", str(policy), given="\n2\n  \n2,0\n\n"))
    assert "exit mix: 2 answers" in text
    assert "disagreement: 1 shadow answers" in text


def test_an_alarm_before_a_bad_line_stays_the_result(
    rows: Path, policy: Path, tmp_path: Path
) -> None:
    stream = tmp_path / "answers.txt"
    stream.write_text("2\n" * 900 + "sure\n")
    words = ("watch", str(rows), "--policy", str(policy), "--stream", str(stream))
    result = run(*words)
    assert result.exit_code == 3
    assert "drift in exit mix" in result.stdout
    assert "exit mix: 900 answers" in result.stdout
    assert "error: line 901 of the stream is 'sure'" in result.stderr
