"""The script that tries the whole zoo, on one small model."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/zoo.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_zoo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_model_is_listed_cut_compared_and_counted(script: ModuleType) -> None:
    row = {"name": "timm:test_byobnet", "seconds": 1.0, **script.check("timm:test_byobnet")}
    assert row["equal"]
    assert row["taps_unchanged"]
    assert row["flops"] == row["flops_listed"] == row["flops_torch"]
    assert len(row["cuts"]) == 3
    failed = {"name": "other", "error": "over 120 s", "seconds": 120.0}
    totals = script.totals([row, failed])
    assert (totals["models"], totals["failed"], totals["equal"]) == (2, 1, 1)
    assert "timm:test_byobnet" in "\n".join(script.summary([row, failed]))


def test_the_smallest_of_each_family_is_chosen_once(script: ModuleType) -> None:
    names = script.model_names()
    assert len(names) == len(set(names)) > 250
    assert {"torchvision:resnet18", "timm:resnet10t", "timm:vgg11", "timm:convnext_atto"} <= set(
        names
    )
