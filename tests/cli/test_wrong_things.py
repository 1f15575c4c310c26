"""Wrong things for every argument and option of every verb: one error each, never a traceback."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from offramp.cli import app
from offramp.cli.verb import FAILURES
from offramp.errors import OfframpError

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

FULL = Path("/dev/full")
VERBS: dict[str, click.Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VALID = {
    "cuts": ["timm:test_resnet", "--input", "3x64x64"],
    "finetune": ["plan.yaml", "--out", "finetuned"],
    "train": ["plan.yaml", "--out", "trained", "--dry-run"],
    "evaluate": ["run"],
    "runs": ["."],
    "tradeoff": ["run"],
    "calibrate": ["run", "--max-drop", "0.05"],
    "run": ["run", "picture.png"],
    "simulate": ["run", "--rate", "10", "--deadline-ms", "50", "--requests", "100"],
    "watch": ["run"],
}
"""Arguments that each verb takes, of which one is replaced. `demo` would train for minutes,
and `export` and `bench` take seconds at each call."""
WRONG = (
    *("", "-1", "0", "nan", "nonsense", "9" * 30, "3x64", "0x0", "/nowhere/x", "net.py:gone"),
    *("empty", "garbage", "folder", "list.yaml", "other.json", "net.py:fails", "net.py:three"),
)


@pytest.fixture
def place(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of outputs and with files of every wrong kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "garbage").write_bytes(np.random.default_rng(0).bytes(300))
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    (tmp_path / "other.json").write_text('{"a": [1, NaN]}')
    (tmp_path / "plan.yaml").write_text("backbone: {name: python}\n")
    (tmp_path / "net.py").write_text(
        "def fails():\n    raise OSError(5)\ndef three():\n    return 3\n"
    )
    return tmp_path


def cases(verb: str) -> Iterator[tuple[str, list[str]]]:
    """Name of what is wrong, and the arguments, for each argument and option of a verb."""
    given = VALID[verb]
    places = [at for at, word in enumerate(given) if not word.startswith("-") and at < 2]
    for parameter in VERBS[verb].params:
        if isinstance(parameter, click.Argument) or parameter.param_type_name == "argument":
            at = places.pop(0) if places else len(given)
            for thing in WRONG:
                yield f"{parameter.name}={thing}", [*given[:at], thing, *given[at + 1 :]]
        elif not getattr(parameter, "is_flag", False) and parameter.name != "help":
            for thing in WRONG:
                yield f"{parameter.opts[0]}={thing}", [*given, f"{parameter.opts[0]}={thing}"]


@pytest.mark.parametrize("verb", VALID)
def test_wrong_things_end_in_one_clear_error(verb: str, place: Path) -> None:
    raw = []
    for name, arguments in cases(verb):
        error: Any = CliRunner().invoke(app, [verb, *arguments], input="").exception
        if error is None or isinstance(error, SystemExit):
            continue
        short = isinstance(error, OfframpError) and len(str(error).split()) < 5
        if short or not isinstance(error, FAILURES):
            raw.append(f"{name}: {type(error).__name__}: {error}")
    assert raw == []


def test_every_verb_is_among_them() -> None:
    assert set(VERBS) - set(VALID) == {"bench", "demo", "export"}


@pytest.mark.parametrize("verb", VALID)
def test_a_failure_is_one_valid_document_too(verb: str, place: Path) -> None:
    if "as_json" not in {parameter.name for parameter in VERBS[verb].params}:
        assert verb in ("train", "evaluate")
        return
    found = CliRunner().invoke(app, [verb, "/nowhere/x", *VALID[verb][1:], "--json"])
    content = json.loads(found.stdout)
    assert content["error"]
    assert len(content["reason"].split()) > 4


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_device_on_stdout_is_one_error(run: Path) -> None:
    command = [sys.executable, "-m", "offramp", "tradeoff", str(run)]
    with FULL.open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"No space left" in done.stderr
