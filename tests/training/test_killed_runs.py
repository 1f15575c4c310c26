import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def outcomes(folder: Path, num_moments: int, what: str) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("killed_runs.py")
    command = [sys.executable, str(script), str(folder), str(num_moments), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(folder: Path, num_moments: int, what: str = "{}") -> None:
    whole, *runs = outcomes(folder, num_moments, what)
    assert len(runs) == num_moments
    assert all(run["digest"] == whole["digest"] for run in runs)
    assert all(run["killed"] for run in runs if run["kind"] != "time")
    assert all(run["left"] == [] for run in runs)


@pytest.mark.slow
def test_a_run_killed_at_twenty_moments_ends_in_the_same_weights(tmp_path: Path) -> None:
    check(tmp_path, 20)


@pytest.mark.slow
def test_so_does_a_fused_run(tmp_path: Path) -> None:
    check(tmp_path, 10, json.dumps({"how": "fused"}))


@pytest.mark.slow
def test_a_finetuning_killed_at_twenty_moments_ends_in_the_same_weights(tmp_path: Path) -> None:
    check(tmp_path, 20, "finetune")


@pytest.mark.slow
def test_so_does_a_finetuning_in_two_stages(tmp_path: Path) -> None:
    check(tmp_path, 15, "density")
