import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offramp.errors import ShapeError
from offramp.evaluation.policy_quality import PolicyQuality
from offramp.evaluation.quality import quality
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Promise, find_score
from offramp.task import measure_of

THRESHOLDS = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=2, max_size=2)


def policy_of(outputs: ExitOutputs, thresholds: Any, score: str = "max_softmax") -> ExitPolicy:
    return ExitPolicy(
        score=find_score(score), thresholds=tuple(thresholds), names=tuple(outputs.names)
    )


def judged(outputs: ExitOutputs, thresholds: Any, score: str = "max_softmax") -> PolicyQuality:
    return quality(outputs, [policy_of(outputs, thresholds, score)]).policies[0]


@given(st.integers(0, 10_000), THRESHOLDS)
def test_every_mix_sums_to_one_and_parts_add_up_to_the_whole(
    make: Any, seed: int, thresholds: Any
) -> None:
    found = judged(make(seed), thresholds)
    rows = (found.overall, *found.parts)
    np.testing.assert_allclose([sum(row.mix) for row in rows], 1)
    for kind in ("class", "group"):
        parts = [row for row in found.parts if row.kind == kind]
        sizes = [row.samples for row in parts]
        assert sum(sizes) == found.overall.samples
        mix = np.average([row.mix for row in parts], axis=0, weights=sizes)
        np.testing.assert_allclose(mix, found.overall.mix)
        drop = np.average([row.drop for row in parts], weights=sizes)
        assert drop == pytest.approx(found.overall.drop)


@given(st.integers(0, 10_000), THRESHOLDS)
def test_the_largest_drop_comes_first_and_is_inside_its_interval(
    make: Any, seed: int, thresholds: Any
) -> None:
    found = judged(make(seed), thresholds)
    drops = [row.drop for row in found.parts]
    assert drops == sorted(drops, reverse=True)
    assert all(row.drop in row.interval for row in (found.overall, *found.parts))


@given(st.integers(0, 10_000))
def test_a_policy_without_early_exits_loses_nothing(make: Any, seed: int) -> None:
    found = judged(make(seed), (None, None))
    assert {row.drop for row in found.parts} == {0.0}
    assert found.overall.mix == (0.0, 0.0, 1.0)
    assert found.saved == pytest.approx(0)


def test_an_average_does_not_hide_the_class_that_loses() -> None:
    labels = np.repeat([0, 1], [90, 10])
    final = 9 * np.eye(2)[labels]
    early = np.tile([9.0, 0.0], (100, 1))
    outputs = ExitOutputs(
        outputs=np.stack([early, final]).astype(np.float32),
        labels=labels,
        stage_flops=np.array([1, 9]),
        branch_flops=np.array([0, 0]),
    )
    found = judged(outputs, (0.5,))
    assert found.overall.drop == pytest.approx(0.1)
    assert [(row.name, row.drop, row.samples) for row in found.parts] == [
        ("1", 1.0, 10),
        ("0", 0.0, 90),
    ]


@given(st.integers(0, 10_000), THRESHOLDS)
def test_the_mean_cost_matches_the_policy(make: Any, seed: int, thresholds: Any) -> None:
    outputs = make(seed)
    found = judged(outputs, thresholds)
    cost = policy_of(outputs, thresholds).cost(outputs).mean()
    assert found.mean_cost == pytest.approx(cost)
    assert found.saved == pytest.approx(1 - cost / 140)
    assert found.oracle_gap >= -1e-12


def test_a_regression_reports_the_rise_per_group(make: Any) -> None:
    outputs = make(4, task="regression")
    found = judged(outputs, (None, -0.5), "agreement")
    errors = np.abs(outputs.outputs[:, :, 0].astype(float) - outputs.labels)
    leaves = policy_of(outputs, (None, -0.5), "agreement").choose(outputs)
    rise = errors[leaves, np.arange(41)] - errors[-1]
    assert {row.kind for row in found.parts} == {"group"}
    for row in found.parts:
        assert row.drop == pytest.approx(rise[outputs.groups.astype(str) == row.name].mean())
        assert row.drop in row.interval


def test_a_policy_of_a_regression_has_an_rmse(make: Any) -> None:
    outputs = make(4, task="regression")
    policy = policy_of(outputs, (None, -0.5), "agreement")
    answers = policy.answers(outputs)[:, 0].astype(float)
    found = judged(outputs, (None, -0.5), "agreement").overall
    assert found.rmse == pytest.approx(np.sqrt(((answers - outputs.labels) ** 2).mean()))
    assert judged(make(4), (0.5, 0.5)).overall.rmse is None


def test_repeated_samples_widen_the_interval(make: Any) -> None:
    one = make(5, samples=60)
    fields = ("outputs", "labels", "groups")
    several = {
        name: np.repeat(getattr(one, name), 4, axis=1 if name == "outputs" else 0)
        for name in fields
    }
    wide = judged(make(5, **several, ids=np.repeat(np.arange(60), 4)), (0.5, 0.5)).overall.interval
    tight = judged(make(5, **several), (0.5, 0.5)).overall.interval
    assert wide.high - wide.low > 1.5 * (tight.high - tight.low)


def test_classes_are_named_if_names_are_known(make: Any) -> None:
    outputs = make(5)
    names = ["cat", "dog", "owl", "eel", "ape"]
    found = quality(outputs, [policy_of(outputs, (0.5, 0.5))], class_names=names)
    parts = {part.name for part in found.policies[0].parts if part.kind == "class"}
    assert parts == set(names)
    assert "class owl" in str(found)
    with pytest.raises(ShapeError, match="class_names has 2 names, but a sample has label 4"):
        quality(outputs, class_names=names[:2])


def five_points(**more: Any) -> ExitOutputs:
    """A drop of 5 points, from about 3.2 to 7.6 if all samples are independent."""
    right = np.ones((2, 400), int)
    right[0, :20] = 0
    return ExitOutputs(
        outputs=np.stack([1.0 - right, 1.0 * right], axis=-1).astype(np.float32),
        labels=np.ones(400, np.int64),
        task="classification",
        stage_flops=np.array([5, 7]),
        branch_flops=np.array([1, 0]),
        **more,
    )


def said_of(outputs: ExitOutputs, limit: float) -> str:
    promise = Promise(
        goal="max_drop", limit=limit, confidence=0.95, method="ltt", num_samples=9, estimate=0.0
    )
    return judged(outputs, [0.0]).against(promise, measure_of("classification"))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0.2, ""),
        (0.04, "extends above the promised 4.00 points. These samples are too few to"),
        (0.001, "lies above the promised 0.10 points"),
    ],
)
def test_a_drop_beside_a_promise_is_put_into_words(limit: float, expected: str) -> None:
    said = said_of(five_points(), limit)
    assert bool(said) == bool(expected)
    assert re.search(expected, said)
    if said:
        assert "on these 400 samples the interval of the drop, +" in said


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0.04, "These clusters are too few to"), (0.001, "and measure on more clusters.")],
)
def test_samples_in_clusters_are_counted_in_clusters(limit: float, expected: str) -> None:
    outputs = five_points(clusters=np.arange(400) // 2)
    said = said_of(outputs, limit)
    assert "on these 400 samples in 200 clusters the interval" in said
    assert expected in said
    found = judged(outputs, [0.0])
    assert found.overall.clusters == found.as_json()["overall"]["clusters"] == 200
    assert judged(five_points(), [0.0]).overall.clusters is None
