"""The half of offramp that is deployed works where torch is not installed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from offramp.outputs import ExitOutputs

ROOT = Path(__file__).parents[2]

ABSENT = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

forbidden = sys.argv[2].split(",")
sys.meta_path.insert(0, Absent())
"""

IMPORT_ALL = (
    ABSENT
    + """
module = importlib.import_module(sys.argv[1])
for part in pkgutil.walk_packages(getattr(module, "__path__", []), f"{module.__name__}."):
    importlib.import_module(part.name)
print(*{name.partition(".")[0] for name in sys.modules} & set(forbidden))
"""
)

SHOW_TRADEOFF = (
    ABSENT
    + """
from offramp.cli import main
sys.argv = ["offramp", "tradeoff", sys.argv[1], "--json"]
main()
"""
)


def torch_free() -> dict[str, list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts: list[dict[str, list[str]]] = settings["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if "forbidden_modules" in contract)


@pytest.mark.parametrize("module", torch_free()["source_modules"])
def test_a_torch_free_module_imports_where_torch_is_absent(module: str) -> None:
    forbidden = ",".join(torch_free()["forbidden_modules"])
    command = [sys.executable, "-c", IMPORT_ALL, module, forbidden]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


def test_the_check_notices_a_module_that_needs_torch() -> None:
    command = [sys.executable, "-c", IMPORT_ALL, "offramp.compute", "torch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in done.stderr


def test_the_contract_names_every_module_the_design_promises() -> None:
    promised = {"errors", "progress", "spec", "cost", "preprocess", "outputs", "storage"}
    promised |= {
        "answer",
        "calibration",
        "drift",
        "evaluation",
        "policy",
        "simulation",
        "task",
        "timing",
    }
    assert {f"offramp.{name}" for name in promised} <= set(torch_free()["source_modules"])


def test_exits_are_compared_on_the_command_line_where_torch_is_absent(tmp_path: Path) -> None:
    outputs = ExitOutputs(
        outputs=np.eye(3, dtype=np.float32)[[[0, 1, 0, 0, 2], [0, 1, 2, 0, 2]]],
        labels=np.array([0, 1, 2, 0, 2]),
        task="classification",
        stage_flops=np.array([300, 700]),
        branch_flops=np.array([20, 0]),
    )
    outputs.save(tmp_path / "outputs.npz")
    forbidden = ",".join(torch_free()["forbidden_modules"])
    command = [sys.executable, "-c", SHOW_TRADEOFF, str(tmp_path / "outputs.npz"), forbidden]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "0.8" in done.stdout
