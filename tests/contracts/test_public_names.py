"""`import offramp` offers the promised names, and costs nothing until one is used."""

import subprocess
import sys

import pytest

import offramp

NAMES = {
    "ConvBranch",
    "Cut",
    "ExitOutputs",
    "ExitPolicy",
    "FeatureCache",
    "MultiExit",
    "OfframpError",
    "Runtime",
    "SLViT",
    "StagedBackbone",
    "calibrate",
    "cut",
    "export",
    "fit_branches",
    "load_plan",
    "tradeoff",
}


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(offramp.__all__) - {"__version__"} == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_resolves_and_says_what_it_is(name: str) -> None:
    assert (getattr(offramp, name).__doc__ or "").strip()


def test_dir_lists_the_public_names_before_any_is_used() -> None:
    program = "import offramp; print(*dir(offramp))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) >= NAMES


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="calibrat0r"):
        _ = offramp.calibrat0r


def test_importing_offramp_loads_neither_torch_nor_numpy() -> None:
    program = "import sys, offramp; print(*{'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
