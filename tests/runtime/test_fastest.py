"""Choosing the fastest engine by measuring."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offramp.bundle import Bundle, open_bundle
from offramp.errors import PlanError
from offramp.runtime.engines import open_engine
from offramp.runtime.fastest import opened_parts
from offramp.runtime.runtime import Runtime


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder)


def clock_of(steps: list[float]) -> Callable[[], float]:
    """A clock that advances by these steps of seconds, over and over."""
    return itertools.accumulate(itertools.cycle(steps)).__next__


def names_here() -> list[str]:
    return [open_engine(name, threads=1).name for name in ("onnxruntime", "openvino")]


@pytest.mark.parametrize(("first_ms", "second_ms", "fastest"), [(2, 5, 0), (5, 2, 1)])
def test_auto_takes_the_engine_whose_runs_took_least(
    bundle: Bundle, first_ms: float, second_ms: float, fastest: int
) -> None:
    names = names_here()
    # Read once at the start; in a round, before and after each engine, and at its end.
    steps = [each / 1000 for each in (1, first_ms, 1, second_ms, 1)]
    clock = clock_of(steps[-1:] + steps[:-1])
    parts, name, because = opened_parts(bundle, "auto", "fp32", 1, lazy=False, clock=clock)
    assert parts.engine.name == names[fastest]
    assert name == ("onnxruntime", "openvino")[fastest]
    assert because.startswith(f"{names[fastest]} is the fastest engine here in fp32 (")
    assert all(name in because for name in names)
    parts.close()


def test_auto_never_changes_the_precision(bundle: Bundle) -> None:
    with Runtime(bundle, engine="auto", threads=1) as runtime:
        assert runtime.source()["precision"] == "fp32"
        assert runtime.chosen_because
        assert runtime.stage_runs == (0, 0, 0)
        assert np.isfinite(runtime.run(np.zeros((3, 9, 7), np.float32)).outputs).all()


def test_a_precision_that_no_engine_has_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(PlanError, match="precision='fp8'"):
        opened_parts(bundle, "auto", "fp8", 1, lazy=False, clock=clock_of([1.0]))


def test_a_named_engine_needs_no_reason(bundle: Bundle) -> None:
    with Runtime(bundle, threads=1) as runtime:
        assert runtime.chosen_because == ""
