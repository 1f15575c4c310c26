import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.calibration.anytime import AnytimePlan, anytime
from offramp.errors import DeadlineError, OfframpError
from offramp.outputs import ExitOutputs

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of


def made(right: list[int], **changes: Any) -> ExitOutputs:
    """10 samples, this many of them right at each exit; stages cost 10, branches 3, 2 and 1."""
    logits = np.zeros((len(right), 10, 2))
    for exit, count in enumerate(right):
        logits[exit, :count, 1] = 1.0
    given = {
        "outputs": logits,
        "labels": [1] * 10,
        "stage_flops": [10] * len(right),
        "branch_flops": [*[3, 2, 1][: len(right) - 1], 0],
    }
    outputs: ExitOutputs = any_outputs(**(given | changes))
    return outputs


def deadlines(plan: AnytimePlan) -> list[tuple[int, float, float]]:
    return [(step.exit, step.deadline, step.value) for step in plan.steps]


def test_the_plan_matches_a_hand_calculation() -> None:
    plan = anytime(made([5, 7, 9]), "flops")
    assert deadlines(plan) == [(0, 13, 0.5), (1, 22, 0.7), (2, 30, 0.9)]
    assert [plan.exit_for(each) for each in (13, 21.9, 22, 29.9, 30, 1e9)] == [0, 0, 1, 1, 2, 2]


def test_a_more_expensive_exit_that_is_not_better_is_skipped() -> None:
    plan = anytime(made([5, 5, 4, 8]), "flops")
    assert deadlines(plan) == [(0, 13, 0.5), (3, 40, 0.8)]
    assert plan.skipped == ("exit 1", "exit 2")
    assert "exit 1, exit 2" in str(plan)


def test_an_interruptible_plan_pays_only_for_the_branches_it_keeps() -> None:
    plan = anytime(made([5, 7, 6, 9]), "flops", interruptible=True)
    assert deadlines(plan) == [(0, 13, 0.5), (1, 25, 0.7), (3, 45, 0.9)]


def test_a_cheaper_later_exit_comes_first() -> None:
    plan = anytime(made([5, 7, 9], branch_flops=[15, 2, 0]), "flops")
    assert deadlines(plan) == [(1, 22, 0.7), (2, 30, 0.9)]


def test_a_deadline_before_the_first_exit_is_refused_with_both_times() -> None:
    plan = anytime(made([5, 9], stage_ms=[4.0, 8.0], branch_ms=[0.5, 0.0]))
    assert plan.exit_for(4.5) == 0
    with pytest.raises(DeadlineError, match=r"4\.4 ms is shorter than the 4\.5 ms .*'exit 0'"):
        plan.exit_for(4.4)
    with pytest.raises(DeadlineError, match="nan"):
        plan.exit_for(float("nan"))


def test_a_plan_in_milliseconds_needs_measured_times() -> None:
    with pytest.raises(OfframpError, match="no measured milliseconds"):
        anytime(made([5, 9]))


def test_in_a_regression_a_smaller_error_is_better() -> None:
    values = np.array([[2.0, 2.0], [3.0, 3.0], [1.0, 1.0]])[..., None]
    plan = anytime(made([0] * 3, outputs=values, labels=[0.0, 0.0], task="regression"), "flops")
    assert deadlines(plan) == [(0, 13, 2.0), (2, 30, 1.0)]
    assert plan.as_json()["steps"][1]["value"] == 1.0
    assert plan.as_json()["measure"] == "mae"


@given(
    right=st.lists(st.integers(0, 10), min_size=1, max_size=4),
    two=st.tuples(st.floats(13, 60), st.floats(13, 60)),
    interruptible=st.booleans(),
)
def test_a_longer_deadline_is_never_less_accurate(
    right: list[int], two: tuple[float, float], interruptible: bool
) -> None:
    plan = anytime(made(right), "flops", interruptible=interruptible)
    short, long = (right[plan.exit_for(deadline)] for deadline in sorted(two))
    assert short <= long


def test_a_plan_prints_as_a_table_and_converts_to_json() -> None:
    plan = anytime(made([5, 9]), "flops")
    assert str(plan).splitlines()[0].split() == ["exit", "from", "FLOPs", "accuracy", "%"]
    assert json.loads(json.dumps(plan.as_json()))["steps"][0]["value"] == 0.5


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_rows_does_not_decide_between_equal_errors(seed: int) -> None:
    random = np.random.default_rng(seed)
    errors = random.normal(size=101)
    each = np.stack([errors, random.permutation(errors)])[..., None]
    outputs = made(
        [1, 1], outputs=each, branch_flops=[30, 0], labels=np.full(101, 0.1), task="regression"
    )
    assert anytime(outputs, "flops").skipped == ("exit 0",)
