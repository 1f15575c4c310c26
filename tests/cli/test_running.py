"""`offramp run`: picture files answered by a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from offramp.cli import app
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, PolicyMenu, Promise, find_score
from offramp.run import open_run
from offramp.run.plan import Plan
from offramp.run.steps import train
from offramp.storage.folder import changing
from offramp.storage.manifest import RUN

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
"""


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, the file of its network, and its pictures."""
    root = tmp_path_factory.mktemp("place")
    for split in ("train", "validation", "calibration", "test"):
        for number, kind in enumerate(("ant", "bee")):
            for index in range(3):
                draw(root / "photos" / split / kind / f"{index}.png", 10 * number + index)
    (root / "network.py").write_text(NETWORK)
    plan = Plan.model_validate(
        {
            "backbone": {"name": "python"},
            "data": {"kind": "image_folder", "root": str(root / "photos"), "image_size": 9},
            "branches": {"1": [{"kind": "conv", "filters": 2, "hidden": 3}]},
            "train": {"epochs": 1, "batch_size": 3, "seeds": [0]},
            "evaluate": {"rival_sizes": [], "timing_repeats": 0, "bootstrap_draws": 9},
        }
    )
    train(plan, root / "run", backbone_file=f"{root / 'network.py'}:network")
    shutil.rmtree(root / "run" / "work")
    return root


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(place / "run", tmp_path / "run"))


def policy(folder: Path, threshold: float, limit: float | None = None) -> ExitPolicy:
    rows = ExitOutputs.load(folder / "outputs" / "test.npz")
    promise = limit and Promise(
        goal="max_drop", limit=limit, confidence=0.9, method="ltt", num_samples=9, estimate=0
    )
    return ExitPolicy(
        score=find_score("max_softmax"),
        names=("1", "final"),
        thresholds=(threshold,),
        promise=promise or None,
        source=rows.source,
    )


def calibrated(folder: Path, *policies: ExitPolicy) -> None:
    with changing(folder, RUN) as staged:
        made = policies[0] if len(policies) == 1 else PolicyMenu(policies)
        made.save(staged / "policy.json")


def offramp(place: Path, folder: Path, *words: str, given: str | None = None) -> Result:
    flag = ("--backbone", f"{place / 'network.py'}:network")
    return CliRunner().invoke(app, ["run", str(folder), *words, *flag], input=given)


def test_a_folder_is_searched_for_pictures_in_order(place: Path, folder: Path) -> None:
    photos = place / "photos" / "test"
    result = offramp(place, folder, str(photos), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [Path(each["file"]).relative_to(photos).as_posix() for each in found["answers"]] == [
        f"{kind}/{index}.png" for kind in ("ant", "bee") for index in range(3)
    ]
    assert {each["class_name"] for each in found["answers"]} <= {"ant", "bee"}
    assert (found["failed"], found["policy"]) == (0, {"file": None, "policies": []})


def test_answers_are_those_of_the_python_call(place: Path, folder: Path) -> None:
    calibrated(folder, policy(folder, 0.0, 0.01))
    photo = place / "photos" / "test" / "ant" / "0.png"
    opened = open_run(folder, backbone_file=f"{place / 'network.py'}:network")
    [found] = json.loads(offramp(place, folder, str(photo), "--json").stdout)["answers"]
    answer = opened.run(photo).as_json()
    for name in ("outputs", "probabilities", "label", "exit", "score", "flops", "promised"):
        assert found[name] == answer[name]
    assert (found["exit"], found["promised"]) == ("1", True)


def test_answers_on_the_test_files_are_those_of_the_stored_outputs(
    place: Path, folder: Path
) -> None:
    rows = ExitOutputs.load(folder / "outputs" / "test.npz")
    scores = find_score("max_softmax").of(rows)[0]
    rule = policy(folder, float(np.sort(scores)[2:4].mean()))
    opened = open_run(folder, backbone_file=f"{place / 'network.py'}:network")
    found = opened.run_batch(sorted((place / "photos" / "test").rglob("*.png")), rule)
    assert [answer.exit for answer in found] == [rule.names[e] for e in rule.choose(rows)]
    outputs = [answer.outputs for answer in found]
    np.testing.assert_allclose(outputs, rule.answers(rows), rtol=1e-5, atol=1e-6)


def test_a_file_that_cannot_be_read_is_a_row_and_exit_code_1(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    photo = place / "photos" / "test" / "ant" / "0.png"
    names = [str(tmp_path / "bad.png"), str(tmp_path / "none.png"), str(photo)]
    result = offramp(place, folder, *names, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [each.get("error") for each in found["answers"]] == ["DataError", "DataError", None]
    assert "its content is not a picture" in found["answers"][0]["reason"]
    table = offramp(place, folder, *names).stdout
    assert "cannot be read: No such file" in table
    assert "3 files, 2 not answered; no policy: the full network answers" in table


def test_other_files_of_a_folder_are_counted_in_a_note(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    draw(inbox / "a.png", 3)
    for name in ("clip.m4a", "deep/notes.txt", "deep/more.txt", "LICENSE", ".hidden.txt"):
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).touch()
    result = offramp(place, folder, str(inbox), "--json")
    assert len(json.loads(result.stdout)["answers"]) == 1
    assert f"{inbox}: these were not read, since they are not .jpg/" in result.stderr
    assert result.stderr.rstrip().endswith(": 1 .m4a, 2 .txt, 1 LICENSE")


def test_a_folder_without_pictures_is_an_error_of_its_row(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = offramp(place, folder, str(tmp_path / "empty"))
    assert result.exit_code == 1
    assert "holds no files of the kind" in result.stdout


def test_names_on_standard_input_are_answered_by_a_line_of_json_each(
    place: Path, folder: Path
) -> None:
    calibrated(folder, policy(folder, 2.0, 0.01))
    photo = place / "photos" / "test" / "ant" / "0.png"
    result = offramp(place, folder, "-", "--jsonl", given=f"{photo}\n\nnone.png\n{photo}\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1
    assert [line["file"] for line in lines] == [str(photo), "none.png", str(photo)]
    assert [line.get("exit") for line in lines] == ["final", None, "final"]
    assert f"policy of {folder / 'policy.json'}: max_softmax: 1 at 2" in result.stderr


def test_the_strictest_policy_of_a_menu_is_used_unless_a_limit_picks_another(
    place: Path, folder: Path
) -> None:
    calibrated(folder, policy(folder, 2.0, 0.01), policy(folder, 0.0, 0.03))
    photo = str(place / "photos" / "test" / "ant" / "0.png")
    for words, exit in (((), "final"), (("--max-drop", "0.03"), "1")):
        found = json.loads(offramp(place, folder, photo, "--json", *words).stdout)
        assert found["answers"][0]["exit"] == exit
        assert len(found["policy"]["policies"]) == 1
    wrong = offramp(place, folder, photo, "--max-rise", "0.5")
    assert "no policy here promises max_rise, only max_drop" in str(wrong.exception)
    both = offramp(place, folder, photo, "--max-rise", "0.5", "--max-drop", "0.03")
    assert both.exit_code == 2


def test_a_policy_in_a_file_is_used_in_place_of_the_runs(
    place: Path, folder: Path, tmp_path: Path
) -> None:
    calibrated(folder, policy(folder, 0.0))
    policy(folder, 2.0).save(tmp_path / "other.json")
    photo = str(place / "photos" / "test" / "ant" / "0.png")
    result = offramp(place, folder, photo, "--policy", str(tmp_path / "other.json"))
    assert f"1 file; policy of {tmp_path / 'other.json'}: max_softmax" in result.stdout
