from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp.errors import BundleError, ShapeError
from offramp.evaluation import TrialOutputs


def test_trials_are_restored_bit_for_bit(tmp_path: Path, trials: TrialOutputs) -> None:
    stage_ms = np.array([1.0, 2.0, 3.0])
    timed = replace(trials, stage_ms=stage_ms, branch_ms=np.arange(12.0), source={"split": "test"})
    timed.save(tmp_path / "trials.npz")
    back = TrialOutputs.load(tmp_path / "trials.npz")
    for name, value in vars(timed).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(back, name), value, strict=True)
        else:
            assert getattr(back, name) == value


def test_another_kind_of_file_is_refused(tmp_path: Path, trials: TrialOutputs) -> None:
    from offramp.outputs import ExitOutputs

    trials.save(tmp_path / "trials.npz")
    with pytest.raises(BundleError, match="does not hold offramp exit outputs"):
        ExitOutputs.load(tmp_path / "trials.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final": np.zeros((39, 3))}, r"final must be \(40, 3\), got \(39, 3\)"),
        ({"cut_names": ["first", "third"]}, r"lacks \['second'\]"),
        ({"cut_names": ["first", "first"]}, "must list every cut once"),
        ({"seeds": np.zeros(12, int)}, "two trials have the same cut, branch and seed"),
        ({"params": np.arange(12)}, "differ in kind, params or branch_flops"),
        ({"branch_ms": np.zeros(12)}, "give both, or neither"),
        ({"seeds": [0]}, r"seeds must have shape \(12,\)"),
        ({"stage_flops": [1, 2]}, r"stage_flops must have shape \(3,\)"),
        ({"labels": np.full(40, 3)}, "sample 0 is labelled 3"),
    ],
)
def test_inconsistent_trials_are_refused(
    trials: TrialOutputs, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        replace(trials, **changes)


def test_trials_store_which_samples_are_not_independent(trials: TrialOutputs) -> None:
    assert trials.units is None
    of_tracks = replace(trials, clusters=np.arange(40) // 5)
    np.testing.assert_array_equal(of_tracks.units, np.arange(40) // 5)
