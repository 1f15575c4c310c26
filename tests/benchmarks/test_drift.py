import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/drift.py"


@pytest.mark.slow
def test_a_smoke_run_counts_alarms_and_measures_delays(tmp_path: Path) -> None:
    record = tmp_path / "drift.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--workers", "1", "--json", record],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "of 20 streams of 5000 answers gave an alarm" in done.stdout
    found = json.loads(record.read_text())
    assert found["false_alarms"]["streams"] == 20
    assert all(0 < row["median"] <= 20_000 for row in found["delays"])
