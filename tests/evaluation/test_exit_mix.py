import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.evaluation import fixed_threshold, tradeoff
from offramp.evaluation.exit_mix import NO_PROMISE
from offramp.outputs import ExitOutputs

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of
SURE, UNSURE = [9.0, 0.0], [0.1, 0.0]


def outputs() -> ExitOutputs:
    logits = [
        [SURE, UNSURE, UNSURE, SURE[::-1]],
        [UNSURE, SURE, UNSURE, UNSURE],
        [SURE, SURE, UNSURE, SURE],
    ]
    made: ExitOutputs = any_outputs(
        outputs=np.array(logits),
        labels=[0, 0, 1, 0],
        names=("early", "late", "final"),
        stage_flops=[10, 20, 70],
        branch_flops=[4, 6, 0],
    )
    return made


def test_by_hand() -> None:
    mix = fixed_threshold(outputs())
    assert [(e.name, e.share, e.accuracy) for e in mix.exits] == [
        ("early", 0.5, 0.5),
        ("late", 0.25, 1.0),
        ("final", 0.25, 0.0),
    ]
    assert mix.accuracy == 0.5
    assert mix.final_accuracy == 0.75
    assert mix.mean_flops == (14 + 40 + 110 + 14) / 4
    assert mix.saved == pytest.approx(1 - 44.5 / 100)


def test_an_exit_fires_at_exactly_the_threshold() -> None:
    tied: ExitOutputs = any_outputs(
        outputs=np.zeros((2, 3, 2)), labels=[0, 1, 0], stage_flops=[1, 9], branch_flops=[1, 0]
    )
    assert fixed_threshold(tied, threshold=0.5).exits[0].share == 1.0
    assert fixed_threshold(tied, threshold=0.5000001).exits[0].share == 0.0


def test_a_threshold_above_one_leaves_everything_to_the_final_layer_at_a_loss() -> None:
    mix = fixed_threshold(outputs(), threshold=1.1)
    assert mix.accuracy == mix.final_accuracy
    assert [exit.accuracy for exit in mix.exits] == [None, None, 0.75]
    assert mix.saved == pytest.approx(-0.1)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_shares_add_up_and_accuracy_is_their_mean(seed: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    some: ExitOutputs = any_outputs(
        outputs=3 * random.normal(size=(3, 11, 5)),
        labels=random.integers(0, 5, 11),
        stage_flops=[1, 2, 4],
        branch_flops=[1, 1, 0],
    )
    mix = fixed_threshold(some, threshold)
    assert sum(exit.share for exit in mix.exits) == pytest.approx(1.0)
    weighted = sum(exit.share * (exit.accuracy or 0.0) for exit in mix.exits)
    assert mix.accuracy == pytest.approx(weighted)
    assert mix.final_accuracy == tradeoff(some)[-1].accuracy


def test_the_text_says_that_nothing_is_promised() -> None:
    text = str(fixed_threshold(outputs()))
    assert NO_PROMISE in text
    assert "maximum softmax >= 0.9" in text
    assert "50.0 % right for 44 FLOPs on average" in text
    assert "(55 % saved, 4 samples)" in text
    plain = json.loads(json.dumps(fixed_threshold(outputs()).as_json()))
    assert plain["note"] == NO_PROMISE
    assert plain["exits"][1] == {"name": "late", "share": 0.25, "accuracy": 1.0}


def test_a_regression_has_no_softmax() -> None:
    values: ExitOutputs = any_outputs(
        outputs=np.zeros((2, 3, 1)),
        labels=np.zeros(3),
        task="regression",
        stage_flops=[1, 1],
        branch_flops=[1, 0],
    )
    with pytest.raises(OfframpError, match="needs classes"):
        fixed_threshold(values)
