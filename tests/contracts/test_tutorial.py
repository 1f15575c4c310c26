"""The tutorial is done as its reader does it: files saved, commands and Python run in order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SET_UP = ("python -m venv", ".venv/bin/pip", "source ", "mkdir ", "cd ")
"""Commands that make the environment and the folder, which the test has already."""


def steps() -> list[list[str]]:
    """Every command and every Python block in order, after the files are there."""
    found = []
    for language, title, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            continue
        if language == "python":
            found.append([sys.executable, "-c", content])
        commands = re.findall(r"^\$ (.+)$", content, re.MULTILINE)
        found += [["bash", "-c", line] for line in commands if not line.startswith(SET_UP)]
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each step printed, by the last of its words that is a command's name."""
    folder = tmp_path_factory.mktemp("tutorial")
    for _, title, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if title:
            (folder / title).write_text(content, encoding="utf-8")
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places)}
    printed = {}
    for command in steps():
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        printed[command[-1]] = done.stdout
    return printed


def output(said: dict[str, str], start: str) -> str:
    """What the step that begins like this printed."""
    [found] = [text for command, text in said.items() if command.startswith(start)]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorial_ends_in_a_certified_policy_that_saves_what_it_says(
    said: dict[str, str],
) -> None:
    certified = output(said, "offramp calibrate")
    assert "accuracy falls by at most 2 points, with 95 % confidence" in certified
    [row] = re.findall(r"^max_drop 0\.02 .*$", certified, re.MULTILINE)
    saved = float(row.split()[-2])
    assert 55 < saved < 85


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorials_network_is_fine_tuned_and_its_pictures_are_answered(
    said: dict[str, str],
) -> None:
    trained = said["offramp train plan.yaml --backbone network.py:trained --out runs/mine"]
    [final] = re.findall(r"^final +backbone +([\d.]+)", trained, re.MULTILINE)
    assert float(final) > 84
    answered = output(said, "offramp run")
    assert len(re.findall(r"^pictures/val/(?:Bag|Coat)/\d+", answered, re.MULTILINE)) > 500
    assert "0 not answered" not in answered
    assert re.search(r"^\S+ blocks|^\S+ final", output(said, "from offramp.run"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tutorials_cuts_are_those_that_are_suggested(said: dict[str, str]) -> None:
    places = set(re.findall(r"^blocks\.\d+", output(said, "offramp cuts"), re.MULTILINE))
    plan = next(text for _, title, text in BLOCK.findall(PAGE.read_text()) if title == "plan.yaml")
    assert places == set(re.findall(r"^  (blocks\.\d+):", plan, re.MULTILINE))
