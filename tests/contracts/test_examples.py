"""The examples run as they are and print something."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


def without_voices() -> None:
    """Skip the example that needs them, unless .ci/run should have installed them."""
    what = "espeak-ng, whose voices speak in it, is not installed"
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"{what}, though .ci/run installs it where it runs as root")
    pytest.skip(what)


@pytest.mark.parametrize(
    ("ci", "user", "outcome"),
    [
        ("true", 0, pytest.fail.Exception),
        ("true", 1000, pytest.skip.Exception),
        ("", 0, pytest.skip.Exception),
    ],
)
def test_continuous_integration_does_not_pass_without_the_voices(
    monkeypatch: pytest.MonkeyPatch, ci: str, user: int, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(outcome, match="espeak-ng"):
        without_voices()


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.timeout(900)
def test_an_example_runs_and_prints(path: Path, tmp_path: Path) -> None:
    if path.stem == "04_speech" and shutil.which("espeak-ng") is None:
        without_voices()
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if (
        path.stem == "04_speech"
    ):  # twelve classes; a promise was certified, or there is no such line
        found = re.search(r"on unheard voices: ([\d.]+)% right", done.stdout)
        assert found is not None, done.stdout
        assert float(found[1]) > 60
