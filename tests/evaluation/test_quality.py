import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.calibration.temperature import fit_temperatures
from offramp.errors import DataError, OfframpError, PlanError, ShapeError
from offramp.evaluation.quality import quality
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, find_score


def policy_of(outputs: ExitOutputs, threshold: float = 0.5) -> ExitPolicy:
    return ExitPolicy(
        score=find_score("max_softmax"),
        thresholds=(threshold, threshold),
        names=tuple(outputs.names),
    )


def permuted(outputs: ExitOutputs, order: np.ndarray) -> ExitOutputs:
    return replace(
        outputs,
        outputs=outputs.outputs[:, order],
        labels=outputs.labels[order],
        groups=None if outputs.groups is None else outputs.groups[order],
    )


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in numbers(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in numbers(item)]
    return [value]


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_order_of_samples_does_not_change_the_quality(make: Any, seed: int) -> None:
    outputs, others = make(seed), make(seed + 1)
    order = np.random.default_rng(seed).permutation(41)
    one, other = (
        quality(each, [policy_of(outputs)], temperatures_on=others).as_json()
        for each in (outputs, permuted(outputs, order))
    )
    for left, right in zip(numbers(one), numbers(other), strict=True):
        assert left == (pytest.approx(right, abs=1e-9) if isinstance(right, float) else right)


def test_temperatures_are_fitted_on_the_other_rows(make: Any) -> None:
    outputs, others = make(1), make(2, samples=300)
    found = quality(outputs, temperatures_on=others)
    assert found.temperatures_fitted_on == 300
    assert tuple(exit.temperature for exit in found.exits[:-1]) == fit_temperatures(others)
    assert quality(outputs).exits[0].after is None


def test_scaling_corrects_overconfident_logits(make: Any) -> None:
    outputs, others = (make(seed, samples=900) for seed in (1, 2))
    sharp, sharp_others = (replace(each, outputs=6 * each.outputs) for each in (outputs, others))
    for exit in quality(sharp, temperatures_on=sharp_others).exits:
        assert exit.before is not None
        assert exit.after is not None
        assert exit.after.ece < exit.before.ece / 2


def test_every_exit_but_the_last_has_one_auroc_per_score(make: Any) -> None:
    found = quality(make(1), scores=["max_softmax", "entropy"])
    assert set(found.exits[0].auroc) == {"max_softmax", "entropy"}
    assert all(area is not None for exit in found.exits[:-1] for area in exit.auroc.values())
    assert set(found.exits[-1].auroc.values()) == {None}


def test_agreement_is_symmetric_and_one_on_the_diagonal(make: Any) -> None:
    outputs = make(3)
    shares = quality(outputs).agreement
    np.testing.assert_array_equal(np.diag(shares), 1)
    np.testing.assert_array_equal(shares, shares.T)
    answers = outputs.outputs.argmax(axis=-1)
    assert shares[0, 2] == (answers[0] == answers[2]).mean()


def test_agreement_of_a_regression_is_the_mean_difference(make: Any) -> None:
    outputs = make(3, task="regression")
    found = quality(outputs)
    values = outputs.outputs[:, :, 0].astype(float)
    assert found.agreement[0, 1] == pytest.approx(np.abs(values[0] - values[1]).mean())
    assert (found.exits[0].before, found.exits[0].auroc) == (None, {})
    assert "MAE" in str(found)


def test_a_budget_point_takes_the_best_choice_within_the_budget(make: Any) -> None:
    outputs = make(3, samples=400)
    right = outputs.correct.mean(axis=1)
    found = quality(outputs, {"half": policy_of(outputs)})
    assert [point.share for point in found.budgets] == [0.25, 0.5, 0.75, 1.0]
    # Own paths are 37, 61 and 140 of 140.
    assert [point.exit for point in found.budgets] == [
        None,
        "late" if right[1] > right[0] else "early",
        "late" if right[1] > right[0] else "early",
        "final",
    ]
    for point in found.budgets:
        assert point.policy == ("half" if found.policies[0].cost_share <= point.share else None)
        assert (point.oracle is None) == (point.share < 37 / 140)
        assert point.value is None or point.value <= (point.oracle or 0)


def test_costs_can_be_milliseconds(make: Any) -> None:
    outputs = make(3, stage_ms=np.array([2.0, 1.0, 5.0]), branch_ms=np.array([1.0, 1.0, 0.0]))
    found = quality(outputs, [policy_of(outputs, 0.0)], unit="ms")
    assert found.exits[-1].cost == 8
    assert found.policies[0].saved == pytest.approx(1 - 3 / 8)
    assert str(found).splitlines()[1].split()[3] == "ms"
    with pytest.raises(OfframpError, match="no measured milliseconds"):
        quality(make(3), unit="ms")


def test_the_text_has_every_table_and_lists_the_worst_first(make: Any) -> None:
    outputs = make(3, samples=400)
    found = quality(outputs, {"half": policy_of(outputs)}, temperatures_on=make(4))
    text = str(found)
    for part in ("temperatures from 41 others", "Agreement", "oracle", "95 % interval", "half"):
        assert part in text
    worst = found.policies[0].parts[0]
    after = text.split("half: the largest drops first\n")[1].splitlines()
    assert after[2].startswith(f"{worst.kind} {worst.name}")


def test_the_whole_quality_converts_to_json(make: Any) -> None:
    for task in ("classification", "regression"):
        content = quality(make(3, task=task)).as_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_temperatures_cannot_be_fitted_on_the_evaluated_rows(make: Any) -> None:
    outputs = make(1)
    with pytest.raises(DataError, match="shares 41 samples"):
        quality(outputs, temperatures_on=outputs)
    named, others = make(1, ids=np.arange(41)), make(2, ids=np.arange(41) + 38)
    with pytest.raises(DataError, match="shares 3 samples"):
        quality(named, temperatures_on=others)


def test_inconsistent_arguments_are_refused(make: Any) -> None:
    outputs, regression = make(1), make(1, task="regression")
    with pytest.raises(ShapeError, match="Collect both from the same model"):
        quality(outputs, temperatures_on=regression)
    wider = np.zeros((3, 41, 6), np.float32)
    with pytest.raises(ShapeError, match="6 classes, but outputs has 5"):
        quality(outputs, temperatures_on=make(2, outputs=wider))
    with pytest.raises(ShapeError, match="policy is for exits"):
        quality(make(1, names=("a", "b", "c")), [policy_of(outputs)])
    with pytest.raises(PlanError, match="right and wrong answers"):
        quality(regression, scores=["given"])
    with pytest.raises(PlanError, match="temperatures divide logits"):
        quality(regression, temperatures_on=make(2, task="regression"))
    with pytest.raises(ShapeError, match="cost is 0"):
        quality(make(1, stage_flops=np.zeros(3, int)))
