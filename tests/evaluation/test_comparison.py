import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offramp.errors import PlanError, ShapeError
from offramp.evaluation import (
    BranchRow,
    Comparison,
    FailedTrial,
    Rival,
    TrialOutputs,
    compare,
    verdict,
)

Make = Callable[..., TrialOutputs]


def row(comparison: Comparison, cut: str, branch: str) -> BranchRow:
    return next(r for r in comparison.rows if (r.cut, r.branch) == (cut, branch))


def with_pool(make_trials: Make) -> TrialOutputs:
    return make_trials(
        {
            ("first", "slvit", "slvit"): [0.6, 0.7],
            ("first", "pool", "conv"): [0.4, 0.4],
            ("first", "conv", "conv"): [0.5, 0.6],
            ("second", "slvit", "slvit"): [0.7, 0.7],
            ("second", "pool", "conv"): [0.5, 0.6],
            ("second", "conv", "conv"): [0.8, 0.8],
        }
    )


def test_rows_contain_mean_and_standard_deviation_over_seeds(trials: TrialOutputs) -> None:
    found = row(compare(trials), "first", "slvit")
    assert found.value == pytest.approx(0.65)
    assert found.std == pytest.approx(0.05)
    assert found.seeds == (0, 1, 2)
    assert found.value in found.interval


def test_costs_match_a_hand_calculation(trials: TrialOutputs) -> None:
    comparison = compare(trials)
    late = row(comparison, "second", "conv")
    assert (late.flops, late.flops_with_passed) == (35_000, 40_000)
    assert late.acceleration == pytest.approx(100 / 35)
    assert row(comparison, "second", "slvit").flops_with_passed == 34_000
    assert row(comparison, "first", "conv").flops_with_passed == 15_000
    assert (comparison.final.flops, comparison.final.acceleration) == (100_000, 1.0)


def test_milliseconds_are_means_over_seeds(trials: TrialOutputs) -> None:
    timed = replace(trials, stage_ms=np.array([1.0, 2, 7]), branch_ms=np.array([1.0, 2, 3] * 4))
    late = row(compare(timed), "second", "conv")
    assert (late.ms, late.ms_with_passed) == (5.0, 7.0)
    assert compare(timed).final.ms == 10.0
    assert late.ms is not None
    assert row(compare(trials), "second", "conv").ms is None


def test_rows_are_in_the_order_of_the_backbone(trials: TrialOutputs) -> None:
    turned = replace(trials, cut_names=np.array(["second", "first"]))
    assert [r.cut for r in compare(turned).rows] == ["second", "second", "first", "first"]


def test_a_more_expensive_branch_of_the_same_kind_must_be_better_to_be_practical(
    make_trials: Make,
) -> None:
    comparison = compare(
        make_trials(
            {
                ("first", "slvit", "slvit"): [0.8],
                ("first", "conv", "conv"): [0.5],
                ("second", "slvit", "slvit"): [0.8],
                ("second", "conv", "conv"): [0.6],
            }
        )
    )
    assert [r.practical for r in comparison.rows] == [True, True, False, True]
    assert comparison.final.practical


def test_the_final_layer_is_impractical_if_an_exit_equals_it(trials: TrialOutputs) -> None:
    best = trials.outputs[trials.cuts == "second"][0]
    assert not compare(replace(trials, final=best)).final.practical


def test_a_branch_more_expensive_than_the_backbone_must_beat_the_final_layer(
    make_trials: Make,
) -> None:
    shares = {("first", "slvit", "slvit"): [0.8], ("second", "slvit", "slvit"): [0.85]}
    expensive = make_trials(shares, branch_flops=[2_000, 200_000])
    assert [r.practical for r in compare(expensive).rows] == [True, False]


def test_differences_are_means_over_pairs_with_the_same_seed(trials: TrialOutputs) -> None:
    first, second = compare(trials).differences
    assert (first.cut, first.branch, first.baseline) == ("first", "slvit", "conv")
    assert first.difference == pytest.approx(0.65 - 0.55)
    assert second.difference == pytest.approx(0.80 - 0.55)
    assert first.difference in first.interval
    assert second.interval.low > 0


def test_only_shared_seeds_are_paired(make_trials: Make) -> None:
    trials = make_trials(
        {("first", "slvit", "slvit"): [0.6, 0.7, 0.8], ("first", "conv", "conv"): [0.5, 0.5]}
    )
    (found,) = compare(trials).differences
    assert found.seeds == (0, 1)
    assert found.difference == pytest.approx(0.15)


def test_identical_branches_have_zero_difference_with_an_interval(
    trials: TrialOutputs,
) -> None:
    alike = trials.outputs.copy()
    alike[trials.kinds == "conv"] = alike[trials.kinds == "slvit"]
    for found in compare(replace(trials, outputs=alike)).differences:
        assert found.difference == 0.0
        assert found.interval.low == -found.interval.high
        assert 0.02 < found.interval.high < 0.2  # of 40 samples, one more could differ


def test_swapping_kinds_flips_the_sign(trials: TrialOutputs) -> None:
    forth, back = compare(trials), compare(trials, baseline_kind="slvit")
    for one, other in zip(forth.differences, back.differences, strict=True):
        assert one.difference == -other.difference
        np.testing.assert_allclose(
            [one.interval.low, one.interval.high], [-other.interval.high, -other.interval.low]
        )


def test_the_order_of_samples_and_trials_does_not_change_means(trials: TrialOutputs) -> None:
    random = np.random.default_rng(0)
    samples, order = random.permutation(40), random.permutation(12)
    per_trial = {
        name: getattr(trials, name)[order]
        for name in ("cuts", "branches", "kinds", "seeds", "params", "branch_flops")
    }
    mixed: dict[str, Any] = {
        **per_trial,
        "outputs": trials.outputs[order][:, samples],
        "final": trials.final[samples],
        "labels": trials.labels[samples],
    }
    before, after = compare(trials), compare(replace(trials, **mixed))
    for r in before.rows:
        other = row(after, r.cut, r.branch)
        assert replace(other, interval=r.interval) == r
    found = {(d.cut, d.difference) for d in after.differences}
    assert found == {(d.cut, d.difference) for d in before.differences}


def test_the_same_call_gives_the_same_intervals(trials: TrialOutputs) -> None:
    assert compare(trials).as_json() == compare(trials).as_json()
    assert compare(trials).rows != compare(trials, seed=1).rows


def test_one_seed_has_no_spread_and_a_note_says_so(make_trials: Make) -> None:
    single = compare(
        make_trials({("first", "slvit", "slvit"): [0.6], ("first", "conv", "conv"): [0.5]})
    )
    assert single.rows[0].std is None
    assert "60.0 ± n/a" in str(single)
    assert "There is only one seed, so they do not cover variation over seeds." in str(single)


def test_without_a_baseline_there_are_no_differences_and_a_note_says_so(make_trials: Make) -> None:
    alone = compare(make_trials({("first", "slvit", "slvit"): [0.6, 0.7]}))
    assert alone.differences == ()
    assert "No paired differences: no cut has both CNN and another branch." in alone.notes


def test_several_branches_of_a_kind_form_separate_series(make_trials: Make) -> None:
    comparison = compare(with_pool(make_trials))
    assert [r.series for r in comparison.rows[:3]] == ["slvit", "pool", "conv"]
    assert row(comparison, "second", "pool").flops_with_passed == 32_000
    assert row(comparison, "second", "conv").flops_with_passed == 40_000
    pairs = [(d.branch, d.baseline) for d in comparison.differences]
    assert pairs == [("slvit", "pool"), ("slvit", "conv")] * 2


def test_a_baseline_given_by_label_is_paired_with_all_others(make_trials: Make) -> None:
    pairs = compare(with_pool(make_trials), baseline="pool").differences
    assert [(d.branch, d.baseline) for d in pairs] == [("slvit", "pool"), ("conv", "pool")] * 2


def test_an_unknown_baseline_is_refused_with_the_nearest_labels(trials: TrialOutputs) -> None:
    with pytest.raises(PlanError, match=r"no trial has the label 'cnv'.*'conv'"):
        compare(trials, baseline="cnv")


def regression(worse: float) -> TrialOutputs:
    values = np.full((2, 5, 1), 1.0, np.float32)
    values[1] += worse
    make: Any = TrialOutputs  # takes whatever numpy makes arrays of
    trials: TrialOutputs = make(
        outputs=values,
        final=np.zeros((5, 1)),
        labels=np.zeros(5),
        task="regression",
        cuts=["a", "a"],
        branches=["slvit", "conv"],
        kinds=["slvit", "conv"],
        seeds=[0, 0],
        params=[1, 1],
        branch_flops=[1, 2],
        cut_names=["a"],
        stage_flops=[10, 10],
    )
    return trials


def test_a_regression_compares_errors() -> None:
    comparison = compare(regression(worse=2.0))
    assert [r.value for r in comparison.rows] == [1.0, 3.0]
    assert comparison.differences[0].difference == -2.0
    assert comparison.final.value == 0.0
    assert [r.practical for r in comparison.rows] == [True, True]
    assert comparison.as_json()["rows"][0]["value"] == 1.0
    assert comparison.as_json()["measure"] == "mae"
    assert "MAE" in str(comparison)


def test_a_regression_shows_rmse_of_branches_and_rivals(trials: TrialOutputs) -> None:
    values = regression(worse=2.0)
    outputs = np.array([[3.0], [4.0], [0.0], [0.0], [0.0]], np.float32)
    small = Rival.measured(
        "9 px", outputs, values.labels, flops=30, resolution=9, task="regression"
    )
    quoted = Rival("8 px", 1.5, flops=20, resolution=8)
    named = replace(values, source={"class_names": ["people"]})
    comparison = compare(named, [small, quoted], draws=9)
    assert [row.rmse for row in comparison.rows] == [1.0, 3.0]
    assert comparison.final.rmse == 0.0
    assert comparison.rivals[0].rival.rmse == pytest.approx(np.sqrt(5))
    assert comparison.as_json()["rivals"][0]["rmse"] == pytest.approx(np.sqrt(5))
    text = str(comparison)
    assert text.count("RMSE (people)") == 2
    assert "2.236" in text
    assert "often call MSE" in text
    assert "RMSE" not in str(compare(trials, draws=9))


def rival(trials: TrialOutputs, name: str, flops: int, outputs: Any = None) -> Rival:
    answers = trials.final if outputs is None else outputs
    return Rival.measured(name, answers, trials.labels, flops=flops, resolution=9, note="as is")


def test_a_rival_is_compared_with_the_most_expensive_affordable_exit_of_each_series(
    trials: TrialOutputs,
) -> None:
    (found,) = compare(trials, [rival(trials, "9 px", 33_000)]).rivals
    assert [(d.kind, d.cut) for d in found.differences] == [("slvit", "second"), ("conv", "first")]
    assert [d.flops for d in found.differences] == [32_000, 15_000]
    assert found.differences[0].difference == pytest.approx(0.8 - 0.9)
    assert found.differences[0].interval is not None
    assert found.differences[0].difference in found.differences[0].interval
    assert found.interval == compare(trials).final.interval


def test_a_rival_with_the_same_answers_as_a_branch_has_zero_difference(make_trials: Make) -> None:
    trials = make_trials({("first", "slvit", "slvit"): [0.6]})
    (found,) = compare(trials, [rival(trials, "twin", 99_999, trials.outputs[0])]).rivals
    (twin,) = found.differences
    assert twin.difference == 0.0
    assert twin.interval is not None
    assert twin.interval.low < 0 < twin.interval.high


def test_a_rival_without_values_per_sample_has_no_interval(trials: TrialOutputs) -> None:
    (found,) = compare(trials, [Rival("bare", 0.7, 20_000, 9)]).rivals
    assert found.interval is None
    assert found.differences[0].interval is None
    assert found.differences[0].difference == pytest.approx(0.65 - 0.7)


def test_inconsistent_rivals_are_refused(trials: TrialOutputs) -> None:
    twice = [rival(trials, "a", 1), rival(trials, "a", 2)]
    with pytest.raises(ShapeError, match="different names"):
        compare(trials, twice)
    with pytest.raises(ShapeError, match=r"rival 'a' has \(7,\) values for 40 samples"):
        compare(trials, [Rival("a", 0.5, 1, 9, values=np.zeros(7))])


def test_json_contains_everything_as_plain_values(trials: TrialOutputs) -> None:
    comparison = compare(trials, [rival(trials, "9 px", 33_000), Rival("bare", 0.7, 1, 9)])
    plain = json.loads(json.dumps(comparison.as_json(), allow_nan=False))
    assert plain["measure"] == "accuracy"
    assert plain["rows"][0]["value"] == comparison.rows[0].value
    assert plain["final"]["value"] == comparison.final.value
    assert plain["differences"][0]["interval"] == [
        comparison.differences[0].interval.low,
        comparison.differences[0].interval.high,
    ]
    assert [len(found["differences"]) for found in plain["rivals"]] == [2, 0]
    assert plain["rivals"][1]["interval"] is None


def test_the_text_has_one_line_per_row_difference_and_rival(trials: TrialOutputs) -> None:
    text = str(compare(trials, [rival(trials, "9 px", 33_000)]))
    lines = [line.split() for line in text.splitlines()]
    assert ["first", "slvit", "65.0", "±", "5.0", "3", "5", "12,000", "12,000", "8.33x"] in lines
    assert ["final", "backbone", "90.0", "100,000", "1.00x"] in lines
    assert ["9", "px", "as", "is", "90.0", "33,000"] in lines
    assert any(line[:5] == ["first", "slvit", "minus", "conv", "+10.00"] for line in lines)
    assert "All seeds see the data in the same order" in text


def test_samples_of_a_cluster_count_as_one_unit(trials: TrialOutputs) -> None:
    tracks = np.arange(40)
    fourfold: dict[str, Any] = {
        "outputs": np.repeat(trials.outputs, 4, axis=1),
        "final": np.repeat(trials.final, 4, axis=0),
        "labels": np.repeat(trials.labels, 4),
    }
    single, as_if = compare(trials), compare(replace(trials, **fourfold))
    clustered = compare(replace(trials, **fourfold, clusters=np.repeat(tracks, 4)))
    assert "160 samples in 40 independent units" in clustered.notes[0]
    for one, wrong, found in zip(single.rows, as_if.rows, clustered.rows, strict=True):
        width = one.interval.high - one.interval.low
        assert found.interval.high - found.interval.low == pytest.approx(width, rel=0.1)
        assert wrong.interval.high - wrong.interval.low < 0.8 * width


def test_a_branch_that_is_always_right_on_few_units_has_a_wide_interval(make_trials: Make) -> None:
    always = make_trials({("first", "conv", "conv"): [1.0]}, clusters=np.repeat(np.arange(20), 2))
    interval = compare(always).rows[0].interval
    assert interval.high == 1.0
    assert interval.low < 0.9


FAILED = [
    FailedTrial("first", "slvit", "slvit", 7, "diverged in epoch 1"),
    FailedTrial("second", "pool", "conv", 0, "diverged in epoch 1"),
    FailedTrial("second", "pool", "conv", 1, "diverged in epoch 1"),
    FailedTrial("second", "pool", "conv", 2, "no memory left"),
]


def table_lines(comparison: Comparison, cut: str, branch: str) -> list[str]:
    table = str(comparison.tables()[0])
    return [line for line in table.splitlines() if line.split()[:2] == [cut, branch]]


def test_a_failed_trial_is_listed_in_its_row_but_excluded_from_means(trials: TrialOutputs) -> None:
    whole, found = compare(trials), compare(trials, failed=FAILED)
    assert replace(found.rows[0], failed=()) == whole.rows[0]
    (line,) = table_lines(found, "first", "slvit")
    assert "65.0 ± 5.0" in line
    assert line.endswith("failed: diverged in epoch 1 (seed 7)")
    assert found.as_json()["rows"][0]["failed"] == [{"seed": 7, "reason": "diverged in epoch 1"}]
    assert "SL-ViT (slvit) at first failed: diverged in epoch 1 (seed 7)." in verdict(found)


def test_a_branch_whose_trials_all_failed_has_its_own_row(trials: TrialOutputs) -> None:
    found = compare(trials, failed=FAILED)
    rows = found.as_json()["rows"]
    assert [(row["cut"], row["branch"]) for row in rows][-2:] == [
        ("second", "conv"),
        ("second", "pool"),
    ]
    assert set(rows[-1]) == set(rows[0])
    assert (rows[-1]["value"], rows[-1]["seeds"]) == (None, [])
    json.dumps(rows, allow_nan=False)
    (line,) = table_lines(found, "second", "pool")
    assert line.split("failed: ")[1:] == [
        "diverged in epoch 1 (seeds 0, 1); ",
        "no memory left (seed 2)",
    ]


def test_inconsistent_failed_trials_are_refused(trials: TrialOutputs) -> None:
    with pytest.raises(ShapeError, match=r"at cut 'third', but the cuts are \['first'"):
        compare(trials, failed=[FailedTrial("third", "conv", "conv", 0, "diverged")])
    with pytest.raises(ShapeError, match="'conv' at 'first' with seed 2 is listed as failed"):
        compare(trials, failed=[FailedTrial("first", "conv", "conv", 2, "diverged")])
