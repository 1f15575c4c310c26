"""Every plan that is committed loads, and is headed by the command that runs it."""

from pathlib import Path

import pytest

from offramp.run.plan import load_plan

ROOT = Path(__file__).parents[2]
PLANS = sorted(
    path for folder in ("src", "examples", "docs") for path in (ROOT / folder).rglob("*.yaml")
)


def test_there_is_a_plan_for_the_demo() -> None:
    assert "demo.yaml" in {path.name for path in PLANS}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_committed_plan_loads(path: Path) -> None:
    assert load_plan(path).branches


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_committed_plan_is_headed_by_its_command(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("offramp " in line for line in head)
