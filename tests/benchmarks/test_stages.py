import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/stages.py"


@pytest.mark.slow
def test_a_smoke_run_measures_time_and_memory_of_every_stage(tmp_path: Path) -> None:
    record = tmp_path / "stages.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--threads", "1", "--json", record],
        capture_output=True,
        text=True,
        check=True,
    )
    stages = json.loads(record.read_text())["stages"]
    assert [stage["name"] for stage in stages] == ["V1", "AV1", "AV2", "final"]
    assert all(stage["name"] in done.stdout for stage in stages)
    # Every stage makes maps of at least 64 channels of 8 x 12 cells.
    assert all(stage["memory"] > 64 * 8 * 12 * 4 for stage in stages)
    assert all(min(stage["seconds"]) > 0 and stage["flops"] > 0 for stage in stages)
