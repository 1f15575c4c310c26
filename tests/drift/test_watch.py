import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offramp.drift import DependenceWarning, Watch, watch
from offramp.errors import BundleError, DataError, PlanError, ShapeError
from offramp.outputs import ExitOutputs

Make = Callable[..., Watch]
SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def stream(answers: int, *shares: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), answers, p=shares)


def test_a_shift_of_five_points_is_detected_and_named(make_watch: Make) -> None:
    watched = make_watch([4000, 3000, 3000])
    (alarm,) = watched.update(stream(8000, 0.35, 0.30, 0.35))
    assert alarm.kind == "exit mix"
    assert alarm.name in ("exit 0", "final")
    assert alarm.reference_share == (0.4 if alarm.name == "exit 0" else 0.3)
    assert alarm.share == pytest.approx(0.35, abs=0.03)
    assert alarm.e_value >= 1 / alarm.rate
    assert "The policy's promise may no longer hold" in str(alarm)
    assert f"{100 * alarm.reference_share:.1f} % in the reference" in str(alarm)
    assert json.loads(json.dumps(alarm.as_json()))["name"] == alarm.name
    assert watched.update(stream(8000, 0.2, 0.3, 0.5)) == []


def test_answers_like_the_reference_give_no_alarm(make_watch: Make) -> None:
    watched = make_watch([4000, 3000, 3000], differ=300)
    shadows = np.random.default_rng(0).random(300) < 0.03
    assert watched.update(stream(30_000, 0.4, 0.3, 0.3), shadows) == []
    assert watched.answers == 30_000
    assert watched.e_values["exit mix"] < 100
    assert "exit mix: 30000 answers, e-value now" in str(watched)
    assert "alarm at 222; disagreement: 300 shadow answers" in str(watched)


def test_more_disagreement_is_detected_and_less_is_ignored(make_watch: Make) -> None:
    random = np.random.default_rng(0)
    worse = make_watch([4000, 6000], differ=200)
    (alarm,) = worse.update([], random.random(400) < 0.15)
    assert (alarm.kind, alarm.name, alarm.reference_share) == (
        "disagreement",
        "disagreement",
        0.02,
    )
    assert alarm.share == pytest.approx(0.15, abs=0.06)
    assert "shadow answers that disagree" in str(alarm)
    better = make_watch([4000, 6000], differ=2000)
    assert better.update([], np.zeros(2000, bool)) == []


@given(st.integers(0, 2**32 - 1), st.integers(0, 1500))
@SETTINGS
def test_a_restart_does_not_change_alarms(make_watch: Make, seed: int, stop: int) -> None:
    exits, shadows = stream(2000, 0.33, 0.67, seed=seed), stream(60, 0.9, 0.1, seed=seed) == 1
    through, stopped = (make_watch([400, 600], differ=30, seed=seed) for _ in range(2))
    first = stopped.update(exits[:stop], shadows[:20])
    again = Watch.from_state(json.loads(json.dumps(stopped.state(), allow_nan=False)))
    after = first + again.update(exits[stop:], shadows[20:])
    whole = through.update(exits, shadows)
    assert {(a.kind, a.answers) for a in after} == {(a.kind, a.answers) for a in whole}
    assert again.e_values == pytest.approx(through.e_values)
    assert again.reference == through.reference


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 1500), min_size=1, max_size=4))
@SETTINGS
def test_a_restart_between_two_calls_gives_the_same_state(
    make_watch: Make, seed: int, stops: list[int]
) -> None:
    exits = stream(1500, 0.33, 0.67, seed=seed)
    through, stopped = (make_watch([400, 600], differ=30, seed=seed, every=2) for _ in range(2))
    for piece in np.split(exits, sorted(stops)):
        shadows = piece[:7] == 0
        through.update(piece, shadows)
        stopped.update(piece, shadows)
        stopped = Watch.from_state(json.loads(json.dumps(stopped.state(), allow_nan=False)))
    assert stopped.state() == through.state()


def test_a_watch_depends_on_the_seed(make_watch: Make) -> None:
    def evidence(seed: int) -> float:
        watched = make_watch([500, 500], seed=seed)
        watched.update(stream(500, 0.5, 0.5))
        return watched.e_values["exit mix"]

    assert evidence(1) == evidence(1)
    assert evidence(1) != evidence(2)


def test_a_larger_reference_detects_drift_sooner(make_watch: Make) -> None:
    """A small reference is itself uncertain, so the same stream says less against it."""

    def delay(samples: int) -> int:
        found = []
        for seed in range(15):
            watched = make_watch([samples // 2, samples // 2], seed=seed)
            alarms = watched.update(stream(10_000, 0.43, 0.57, seed=seed))
            found.append(alarms[0].answers if alarms else 10_000)
        return int(np.median(found))

    assert delay(20_000) < delay(1000)


def test_a_disabled_exit_has_no_share_and_its_number_is_refused(
    make_reference: Any, make_policy: Any
) -> None:
    reference: ExitOutputs = make_reference([300, 300, 400])
    watched = watch(reference, make_policy(reference, 0))
    assert watched.reference.names == ("exit 1", "final")
    assert sum(watched.reference.mix.placing) == 100
    watched.update([1, 2, 2])
    with pytest.raises(ShapeError, match=r"in \[1, 2\]"):
        watched.update([0, 1])


@pytest.mark.parametrize("exits", [[0.5], [[0, 1]], ["exit 0"], [3]])
def test_invalid_exits_are_refused(make_watch: Make, exits: Any) -> None:
    with pytest.raises(ShapeError, match="array of whole numbers"):
        make_watch([300, 300]).update(exits)


@pytest.mark.parametrize("disagree", [[0.5], [[True]], [2]])
def test_invalid_disagreements_are_refused_and_nothing_is_counted(
    make_watch: Make, disagree: Any
) -> None:
    watched = make_watch([300, 300])
    with pytest.raises(ShapeError, match="array of booleans"):
        watched.update([0, 1], disagree)
    assert watched.answers == 0


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_a_rate_that_is_not_a_probability_is_refused(make_watch: Make, rate: float) -> None:
    with pytest.raises(PlanError, match="rate="):
        make_watch([300, 300], rate=rate)


def test_a_reference_too_small_or_without_early_exits_is_refused(
    make_watch: Make, make_reference: Any, make_policy: Any
) -> None:
    with pytest.raises(
        DataError, match=r"at least 100 independent reference samples.*got 99 samples"
    ):
        make_watch([50, 49])
    reference = make_reference([300, 300])
    with pytest.raises(DataError, match="0 enabled early exits"):
        watch(reference, make_policy(reference, 0))


def test_a_watch_of_a_regression_ignores_disagreement(make_policy: Any) -> None:
    reference = ExitOutputs(
        outputs=np.zeros((2, 200, 1), np.float32),
        labels=np.zeros(200),
        task="regression",
        stage_flops=np.array([1, 1]),
        branch_flops=np.array([1, 0]),
        scores=np.tile(np.arange(200) % 2, (2, 1)).astype(np.float64),
    )
    watched = watch(reference, make_policy(reference))
    again = Watch.from_state(json.loads(json.dumps(watched.state())))
    assert set(again.e_values) == {"exit mix"}
    with pytest.raises(PlanError, match="Leave disagree out"):
        watched.update([0], [True])


@pytest.mark.parametrize("content", [{}, {"schema": "offramp watch 2", "rate": 0.1}])
def test_a_state_with_another_schema_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="new watch"):
        Watch.from_state(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [("every", -1), ("every", None), ("every", "x"), ("rate", 2.0), ("rate", "x")],
)
def test_a_state_with_an_invalid_setting_is_refused(
    make_watch: Make, name: str, value: object
) -> None:
    with pytest.raises(BundleError, match=rf"damaged .*{name}=.*new watch"):
        Watch.from_state({**make_watch([500, 500]).state(), name: value})


def test_a_state_with_negative_counts_is_refused(make_watch: Make) -> None:
    state = make_watch([500, 500]).state()
    state["reference"]["mix"]["ranked"][0] = -3
    with pytest.raises(BundleError, match="damaged"):
        Watch.from_state(state)


def runs(answers: int, length: int, *shares: float, seed: int = 1) -> np.ndarray:
    return np.repeat(stream(answers // length, *shares, seed=seed), length)


def test_dependent_answers_give_one_warning_and_its_advice_works(make_watch: Make) -> None:
    exits = runs(6000, 5, 0.4, 0.3, 0.3)
    watched = make_watch([400, 300, 300])
    with pytest.warns(
        DependenceWarning, match=r"answers up to 4 apart agree more often.*every=5 or"
    ):
        watched.update(exits[:3000])
    again = Watch.from_state(json.loads(json.dumps(watched.state())))
    again.update(exits[3000:])  # warns no more: a warning would be an error here
    assert "which depend on each other" in str(again)
    thinned = make_watch([400, 300, 300], every=5)
    thinned.update(exits)
    assert "one answer in 5" in str(thinned)
    assert "depend" not in str(thinned)


def test_every_kth_answer_is_used_however_calls_divide_the_answers(make_watch: Make) -> None:
    exits = stream(3000, 0.2, 0.8)
    single, thinned, parts = (make_watch([500, 500], every=every) for every in (1, 3, 3))
    (alarm,) = single.update(exits[::3])
    (late,) = thinned.update(exits)
    found = [each for piece in np.split(exits, [1, 2, 250, 251]) for each in parts.update(piece)]
    assert (late.e_value, late.share) == (alarm.e_value, alarm.share)
    assert late.answers == 3 * (alarm.answers - 1) + 1
    assert late.since == 3 * alarm.since
    assert [each.answers for each in found] == [late.answers]
    assert thinned.answers == parts.answers == 3000


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_every_must_be_a_positive_whole_number(make_watch: Make, every: Any) -> None:
    with pytest.raises(PlanError, match="every="):
        make_watch([300, 300], every=every)


def test_one_reference_sample_is_used_per_id(make_reference: Any, make_policy: Any) -> None:
    reference = make_reference([1000, 1500])
    fivefold = replace(reference, ids=np.arange(2500) // 5)
    with pytest.warns(DependenceWarning, match="uses only 500 of them, at most one of each"):
        watched = watch(fivefold, make_policy(reference))
    mix = watched.reference.mix
    assert np.add(mix.placing, mix.ranked).tolist() == [200, 300]
    with pytest.raises(DataError, match=r"100 independent reference samples.*got 50 samples"):
        watch(replace(reference, clusters=np.arange(2500) // 50), make_policy(reference))


def test_units_of_different_sizes_keep_the_mix_of_the_samples(
    make_reference: Any, make_policy: Any
) -> None:
    """Units of four leave early, single samples late: 80 and 20 % of the samples."""
    reference = make_reference([4000, 1000])
    clusters = np.concatenate([np.arange(4000) // 4, 1000 + np.arange(1000)])
    with pytest.warns(DependenceWarning):
        watched = watch(replace(reference, clusters=clusters), make_policy(reference))
    assert watched.reference.mix.whole[0] == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
def test_repeated_reference_samples_give_no_more_false_alarms_than_stated(
    make_reference: Any, make_policy: Any
) -> None:
    random, alarms = np.random.default_rng(0), 0
    for seed in range(100):
        units = random.multinomial(500, [0.4, 0.6])
        reference = make_reference(5 * units)
        repeated = replace(reference, ids=np.repeat(np.arange(500), 5))
        with pytest.warns(DependenceWarning):
            watched = watch(repeated, make_policy(reference), rate=0.05, seed=seed)
        alarms += bool(watched.update(random.choice(2, 10_000, p=[0.4, 0.6])))
    assert alarms <= 5


@pytest.mark.slow
def test_false_alarms_stay_below_the_rate_and_shifts_are_detected_in_time(
    make_reference: Any, make_policy: Any
) -> None:
    """At a rate of 20 %, where few streams say much; the benchmark counts at 1 %."""
    random = np.random.default_rng(0)
    mix, shifted = [0.4, 0.35, 0.25], [0.35, 0.35, 0.30]

    def drawn(rate: float) -> Watch:
        reference = make_reference(random.multinomial(5000, mix), differ=100)
        return watch(reference, make_policy(reference), rate=rate, seed=int(random.integers(99)))

    false = [bool(drawn(0.2).update(random.choice(3, 20_000, p=mix))) for _ in range(150)]
    assert sum(false) <= 0.2 * 150
    delays = [drawn(0.01).update(random.choice(3, 8000, p=shifted)) for _ in range(60)]
    assert np.median([alarms[0].answers if alarms else 8000 for alarms in delays]) <= 2000
