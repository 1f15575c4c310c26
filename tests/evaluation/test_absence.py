from typing import Any

import numpy as np
import pytest

from offramp.errors import ArgumentError, ShapeError
from offramp.evaluation import compare_absence
from offramp.outputs import ExitOutputs

LABELS = np.arange(20) % 3


def outputs(names: tuple[str, ...], wrong: list[int], **changes: Any) -> ExitOutputs:
    """Each exit answers the first so many samples wrongly."""
    answers = np.stack([(LABELS + (np.arange(20) < each)) % 3 for each in wrong])
    given: dict[str, Any] = {
        "outputs": np.eye(3, dtype=np.float32)[answers],
        "labels": LABELS,
        "stage_flops": [10] * len(names),
        "branch_flops": [1] * (len(names) - 1) + [0],
        "names": names,
    }
    return ExitOutputs(**(given | changes))


def test_each_exit_is_shown_with_and_without_an_input() -> None:
    whole = outputs(("V1", "AV1", "AV2", "final"), [8, 2, 1, 0])
    found = compare_absence(whole, {"sound": outputs(("V1", "AV1"), [8, 5])})
    assert [(row.absent, row.exit, row.value, row.without) for row in found] == [
        ("sound", "V1", 0.6, 0.6),
        ("sound", "AV1", 0.9, 0.75),
        ("sound", "AV2", 0.95, None),
        ("sound", "final", 1.0, None),
    ]
    assert found[1].difference == pytest.approx(-0.15)
    assert -0.15 in found[1].interval
    assert 0.0 in found[0].interval
    lines = str(found).splitlines()
    assert lines[0] == "Where an input is absent"
    assert lines[1].split("  ")[0] == "absent"
    assert "refuses" in lines[-2]
    assert lines[-1] == "20 samples; intervals: paired."
    assert found.as_json()["rows"][3]["without"] is None


def test_errors_of_values_are_compared_too() -> None:
    def values(names: tuple[str, ...], off: list[float]) -> ExitOutputs:
        answers = np.stack([LABELS + each for each in off])[..., None].astype(np.float32)
        labels = LABELS.astype(np.float32)
        return outputs(names, [0], outputs=answers, labels=labels, task="regression")

    whole = values(("AV1", "final"), [1.0, 0.5])
    found = compare_absence(whole, {"sound": values(("AV1",), [3.0])})
    assert (found[0].value, found[0].without, found[0].difference) == (1.0, 3.0, 2.0)


def test_outputs_of_other_samples_or_exits_are_refused() -> None:
    whole = outputs(("AV1", "final"), [2, 0])
    with pytest.raises(ShapeError, match="without 'sound' have other labels"):
        compare_absence(whole, {"sound": outputs(("AV1",), [2], labels=(LABELS + 1) % 3)})
    with pytest.raises(ShapeError, match=r"have exits \['V9'\]"):
        compare_absence(whole, {"sound": outputs(("V9",), [2])})
    with pytest.raises(ArgumentError, match="ExitOutputs"):
        compare_absence(whole, {"sound": "outputs.npz"})  # type: ignore[dict-item]
