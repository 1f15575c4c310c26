import json
from typing import Any

import numpy as np

from offramp.answer import Answer


def answer(**changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "outputs": np.array([0.5, -1.0, 2.0], np.float32),
        "probabilities": np.array([0.2, 0.1, 0.7]),
        "label": 2,
        "class_name": "owl",
        "exit": "early",
        "score": 0.7,
        "stage_ms": (1.5, 2.0),
        "total_ms": 4.25,
        "flops": 3_000_000,
        "flops_saved": 0.75,
        "promised": True,
    }
    return Answer(**(fields | changes))


def test_the_fields_of_an_answer_are_its_json() -> None:
    found = json.loads(json.dumps(answer().as_json()))
    assert list(found) == [
        *("outputs", "probabilities", "label", "class_name", "exit", "score", "stage_ms"),
        *("total_ms", "flops", "flops_saved", "promised", "interrupted", "absent"),
    ]
    assert found["outputs"] == [0.5, -1.0, 2.0]
    assert (found["class_name"], found["promised"], found["interrupted"]) == ("owl", True, False)


def test_an_answer_reads_as_one_line() -> None:
    assert str(answer()) == (
        "owl (exit early, score 0.700; 4.2 ms; 3.0 MFLOPs, 75 % saved, covered by the policy's "
        "promise)"
    )
    assert str(answer(absent=("sound",))).startswith("owl (exit early, score 0.700, without sound;")
    assert str(answer(absent=("sound",), promised=False)).endswith(", not covered by a promise)")


def test_an_answer_is_named_by_class_by_number_or_by_value() -> None:
    value = answer(label=None, class_name=None, probabilities=None, outputs=np.array([2.5]))
    assert [each.text for each in (answer(), answer(class_name=None), value)] == [
        *("owl", "class 2", "2.5"),
    ]
