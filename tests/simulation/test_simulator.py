import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offramp.errors import OfframpError, PlanError, ShapeError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, PolicyMenu
from offramp.simulation import (
    Bursts,
    Constant,
    FixedRate,
    Lognormal,
    Poisson,
    Simulation,
    SimulationRow,
    Uniform,
    simulate,
)

any_outputs: Any = ExitOutputs  # takes whatever numpy makes arrays of
Policy = Callable[..., ExitPolicy]
SETTINGS = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SEEDS = st.integers(0, 2**32 - 1)


def run(outputs: ExitOutputs, policies: dict[str, ExitPolicy], **changes: Any) -> Simulation:
    given: dict[str, Any] = {
        "arrivals": FixedRate(per_second=10),
        "deadline_ms": 100.0,
        "requests": 400,
    }
    return simulate(outputs, policies, **(given | changes))


def test_without_a_queue_the_response_time_is_transmission_plus_service(
    outputs: ExitOutputs, policy: Policy
) -> None:
    found = run(
        outputs,
        {"both": policy(0.9, 0.9)},
        arrivals=FixedRate(per_second=1),
        uplink=Constant(ms=6),
        downlink=Constant(ms=2),
    )
    assert found["full network"].p50_ms == pytest.approx(6 + 20 + 2)
    assert found["full network"].p99_ms == pytest.approx(6 + 20 + 2)
    assert found["smallest exit"].p95_ms == pytest.approx(6 + 5 + 2)
    # Half leave at the first exit, a quarter at the second, a quarter pays for all branches.
    assert found["both"].p50_ms in (pytest.approx(6 + 5 + 2), pytest.approx(6 + 8.5 + 2))
    assert found["both"].p99_ms == pytest.approx(6 + 21.5 + 2)
    assert found["both"].missed == 0


def test_without_a_queue_answers_and_costs_are_those_of_the_policy(
    outputs: ExitOutputs, policy: Policy
) -> None:
    both = policy(0.9, 0.9)
    row = run(outputs, {"both": both}, requests=10_000, arrivals=FixedRate(per_second=1))["both"]
    leaves = both.choose(outputs)
    right = outputs.correct[leaves, np.arange(4)].mean()
    assert row.value == pytest.approx(right, abs=0.02)
    assert row.value_in_time == row.value
    assert row.exits == pytest.approx((0.5, 0.25, 0.25), abs=0.02)
    assert row.mean_ms == pytest.approx(both.cost(outputs, "ms").mean(), rel=0.02)
    assert row.mean_flops == pytest.approx(both.cost(outputs).mean(), rel=0.02)
    assert row.utilisation == pytest.approx(row.mean_ms / 1000, rel=0.02)


def test_rows_are_in_order_with_each_policy_twice(outputs: ExitOutputs, policy: Policy) -> None:
    found = run(outputs, {"a": policy(0.9, None), "b": policy(None, 0.9)})
    names = ["full network", "smallest exit", "a", "a, by the deadline"]
    assert [row.name for row in found] == [*names, "b", "b, by the deadline"]
    assert len(found) == 6


def test_the_smallest_exit_is_the_cheapest_on_its_own_path(policy: Policy) -> None:
    slow_branch: ExitOutputs = any_outputs(
        outputs=np.zeros((3, 5, 2)),
        labels=[0] * 5,
        stage_flops=[1, 1, 1],
        branch_flops=[1, 1, 0],
        stage_ms=[4.0, 1.0, 9.0],
        branch_ms=[3.0, 0.5, 0.0],
    )
    assert run(slow_branch, {})["smallest exit"].exits == (0.0, 1.0, 0.0)


def test_with_deadlines_the_last_exit_in_time_answers(outputs: ExitOutputs, policy: Policy) -> None:
    never = {"never": policy(2.0, 2.0)}
    for deadline, exits in (
        (10, (1, 0, 0)),
        (13.4, (1, 0, 0)),
        (13.5, (0, 1, 0)),
        (26.5, (0, 0, 1)),
    ):
        found = run(outputs, never, deadline_ms=deadline, uplink=Constant(ms=5))
        assert found["never, by the deadline"].exits == exits
        assert found["never, by the deadline"].missed == 0


def test_with_deadlines_an_exit_that_never_fires_can_answer_at_its_own_cost(
    outputs: ExitOutputs, policy: Policy
) -> None:
    row = run(outputs, {"none": policy(None, None)}, deadline_ms=8.0)["none, by the deadline"]
    assert row.exits == (0, 1, 0)
    assert row.mean_ms == pytest.approx(4 + 3 + 0.5)
    assert row.mean_flops == pytest.approx(400 + 300 + 50)


def test_a_request_that_no_exit_can_answer_in_time_is_refused(
    outputs: ExitOutputs, policy: Policy
) -> None:
    row = run(outputs, {"all": policy(0.9, 0.9)}, deadline_ms=4.9)["all, by the deadline"]
    assert (row.refused, row.missed, row.value, row.value_in_time) == (1, 1, 0, None)
    assert math.isinf(row.p50_ms)
    assert row.mean_ms == row.mean_flops == row.utilisation == 0
    assert row.as_json()["p99_ms"] is None


def test_time_is_reserved_for_the_downlink(outputs: ExitOutputs, policy: Policy) -> None:
    def missed(reserve: float) -> float:
        found = run(
            outputs,
            {"never": policy(2.0, 2.0)},
            deadline_ms=30.0,
            downlink=Uniform(low_ms=0, high_ms=20),
            reserve=reserve,
            requests=4000,
        )
        return found["never, by the deadline"].missed

    assert missed(1.0) == 0
    assert missed(0.3) > 0.2


@given(seed=SEEDS)
@SETTINGS
def test_with_the_full_downlink_reserved_only_refused_requests_are_missed(
    outputs: ExitOutputs, policy: Policy, seed: int
) -> None:
    found = run(
        outputs,
        {"both": policy(0.9, None)},
        arrivals=Bursts(per_second=70, burst_size=3),
        deadline_ms=30.0,
        uplink=Uniform(low_ms=0, high_ms=10),
        downlink=Uniform(low_ms=0, high_ms=5),
        reserve=1.0,
        seed=seed,
    )
    row = found["both, by the deadline"]
    assert row.missed == row.refused
    assert sum(row.exits) == pytest.approx(1 - row.missed)


def test_a_late_answer_counts_as_wrong_and_as_not_in_time(outputs: ExitOutputs) -> None:
    found = run(outputs, {}, deadline_ms=25.0, uplink=Uniform(low_ms=0, high_ms=10))
    full = found["full network"]
    assert 0 < full.missed < 1
    assert full.value_in_time == 1
    assert full.value == pytest.approx(1 - full.missed)


def test_a_missed_request_of_a_regression_counts_as_the_median() -> None:
    values: ExitOutputs = any_outputs(
        outputs=np.array([[[1.0], [2.0], [3.0]], [[2.0], [4.0], [9.0]]]),
        labels=[2.0, 4.0, 9.0],
        task="regression",
        stage_flops=[1, 1],
        branch_flops=[1, 0],
        stage_ms=[4.0, 6.0],
        branch_ms=[1.0, 0.0],
    )
    found = run(values, {}, deadline_ms=9.0, requests=10_000)
    assert found["full network"].value == pytest.approx((2 + 0 + 5) / 3, rel=0.03)
    assert found["full network"].value_in_time is None
    assert found["smallest exit"].value == pytest.approx((1 + 2 + 6) / 3, rel=0.03)
    assert "median of the labels" in str(found)


@given(seed=SEEDS)
@SETTINGS
def test_the_simulation_depends_on_the_seed(
    outputs: ExitOutputs, policy: Policy, seed: int
) -> None:
    def once(seed: int) -> Simulation:
        return run(
            outputs,
            {"both": policy(0.9, 0.9)},
            arrivals=Poisson(per_second=60),
            uplink=Lognormal(median_ms=5, sigma=1),
            seed=seed,
        )

    assert once(seed) == once(seed)
    assert once(seed).rows != once(seed + 1).rows


@given(seed=SEEDS, deadline=st.floats(5, 80), later=st.floats(0, 50))
@SETTINGS
def test_a_later_deadline_never_misses_more_if_service_ignores_deadlines(
    outputs: ExitOutputs, policy: Policy, seed: int, deadline: float, later: float
) -> None:
    def missed(deadline_ms: float) -> list[float]:
        found = run(
            outputs,
            {"both": policy(0.9, 0.9)},
            arrivals=Bursts(per_second=40, burst_size=3),
            uplink=Uniform(low_ms=1, high_ms=30),
            deadline_ms=deadline_ms,
            seed=seed,
        )
        return [row.missed for row in found if "deadline" not in row.name]

    assert (np.array(missed(deadline + later)) <= missed(deadline)).all()


@given(seed=SEEDS, rate=st.floats(5, 100), faster=st.floats(1, 3))
@SETTINGS
def test_a_higher_rate_never_lowers_the_tail_latency(
    outputs: ExitOutputs, policy: Policy, seed: int, rate: float, faster: float
) -> None:
    def tail(per_second: float) -> list[float]:
        found = run(
            outputs,
            {"both": policy(0.9, 0.9)},
            arrivals=Poisson(per_second=per_second),
            uplink=Constant(ms=3),  # with a random one requests would overtake each other
            downlink=Uniform(low_ms=0, high_ms=5),
            seed=seed,
        )
        return [row.p99_ms for row in found if "deadline" not in row.name]

    assert (np.array(tail(rate * faster)) >= np.array(tail(rate)) - 1e-6).all()


def test_all_rows_see_the_same_requests(outputs: ExitOutputs, policy: Policy) -> None:
    """A policy whose first exit always fires is the smallest exit alone, to the last bit."""
    found = run(
        outputs,
        {"first": policy(0.0, None)},
        arrivals=Poisson(per_second=150),
        uplink=Lognormal(median_ms=5, sigma=1),
    )
    first = dataclasses.replace(found["first"], name="smallest exit")
    assert first == found["smallest exit"]


def test_transmission_times_do_not_change_samples_or_arrivals(outputs: ExitOutputs) -> None:
    def accuracy(**changes: Any) -> float:
        return run(outputs, {}, deadline_ms=1e6, **changes)["smallest exit"].value

    assert accuracy() == accuracy(downlink=Lognormal(median_ms=1, sigma=1), uplink=Constant(ms=9))


def test_a_higher_rate_gives_a_higher_utilisation_and_tail_latency(outputs: ExitOutputs) -> None:
    slow, fast = (
        run(outputs, {}, arrivals=FixedRate(per_second=rate))["full network"] for rate in (25, 80)
    )
    assert slow.utilisation == pytest.approx(0.5, abs=0.01)
    assert fast.utilisation == pytest.approx(1.0)
    assert fast.p99_ms > 10 * slow.p99_ms


def test_text_and_json_describe_the_simulation(outputs: ExitOutputs, policy: Policy) -> None:
    ticks = iter((1.0, 3.5))
    found = run(outputs, {"both": policy(0.9, 0.9)}, deadline_ms=30.0, clock=lambda: next(ticks))
    assert found.seconds == 2.5
    assert "400 requests, deadline 30 ms after sending" in str(found)
    assert str(found).splitlines()[0].split()[:4] == ["answers", "accuracy", "%", "in"]
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["arrivals"] == {"kind": "fixed", "per_second": 10.0}
    assert plain["rows"][0]["exits"] == [0.0, 0.0, 1.0]
    assert [row["name"] for row in plain["rows"]] == [row.name for row in found]


def test_a_row_with_a_growing_queue_is_called_overloaded(
    outputs: ExitOutputs, policy: Policy
) -> None:
    found = run(outputs, {"p": policy(0.9, 0.9)}, arrivals=FixedRate(per_second=150))
    assert found["p, by the deadline"].utilisation > 0.999
    assert str(found).endswith("that keeps growing: full network, p.")
    assert "Overloaded" not in str(run(outputs, {}, arrivals=FixedRate(per_second=10)))


def test_outputs_without_times_are_refused(policy: Policy) -> None:
    untimed: ExitOutputs = any_outputs(
        outputs=np.zeros((2, 3, 2)), labels=[0, 1, 0], stage_flops=[1, 1], branch_flops=[1, 0]
    )
    with pytest.raises(OfframpError, match="Collect them with timing"):
        run(untimed, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deadline_ms": 0.0}, "deadline_ms=0.0"),
        ({"deadline_ms": math.nan}, "deadline_ms=nan"),
        ({"requests": 0}, "a whole number, at least 1"),
        ({"requests": 10.5}, "a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, r"seed is 0\.5"),
        ({"reserve": 1.5}, "reserve=1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(
    outputs: ExitOutputs, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        run(outputs, {}, **changes)


def test_a_policy_cannot_take_the_name_of_another_row(outputs: ExitOutputs, policy: Policy) -> None:
    with pytest.raises(PlanError, match="Rename the policy"):
        run(outputs, {"full network": policy(0.9, 0.9)})


def test_a_policy_cannot_take_the_name_of_a_deadline_row(
    outputs: ExitOutputs, policy: Policy
) -> None:
    rule = policy(0.9, 0.9)
    with pytest.raises(PlanError, match=r"'p, by the deadline' is already the name of another row"):
        run(outputs, {"p": rule, "p, by the deadline": rule})


def test_a_menu_is_refused_with_advice_on_passing_its_policies(outputs: ExitOutputs) -> None:
    menu: Any = PolicyMenu.__new__(PolicyMenu)  # what it holds does not matter
    with pytest.raises(PlanError, match=r"'mine' is a menu.*Pass the policies of the menu"):
        run(outputs, {"mine": menu})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"arrivals": FixedRate(per_second=1e-320)}, "arrivals"),
        ({"arrivals": Poisson(per_second=1e-306)}, "arrivals"),
        ({"arrivals": Bursts(per_second=1, burst_size=200, gap_ms=1e307)}, "arrivals"),
        ({"uplink": Lognormal(median_ms=1e307, sigma=10)}, "uplink"),
        ({"uplink": Constant(ms=1e308), "downlink": Constant(ms=1e308)}, "downlink"),
    ],
)
def test_overflowing_times_are_refused_naming_the_setting(
    outputs: ExitOutputs, changes: dict[str, Any], name: str
) -> None:
    with pytest.raises(PlanError, match=f"^{name}=.* overflow"):
        run(outputs, {}, **changes)


def test_a_policy_for_other_exits_is_refused(outputs: ExitOutputs, policy: Policy) -> None:
    with pytest.raises(ShapeError, match="for exits"):
        run(outputs, {"other": policy(0.9)})


def test_one_request_is_enough_to_run(outputs: ExitOutputs, policy: Policy) -> None:
    rows: list[SimulationRow] = list(run(outputs, {"both": policy(0.9, 0.9)}, requests=1))
    assert all(row.utilisation == pytest.approx(1.0) for row in rows)


@pytest.mark.slow
def test_a_hundred_thousand_requests_with_four_policies_take_under_ten_seconds(
    outputs: ExitOutputs, policy: Policy
) -> None:
    found = run(
        outputs,
        {str(threshold): policy(threshold, 0.9) for threshold in (0.1, 0.5, 0.9, 2.0)},
        arrivals=Poisson(per_second=60),
        uplink=Lognormal(median_ms=5, sigma=1),
        requests=100_000,
    )
    assert found.seconds < 10
