"""Simulator: requests with a deadline, one server with a queue, and measured stage times."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from offramp.arguments import check_kind, check_seed
from offramp.errors import PlanError
from offramp.outputs import CostUnit, ExitOutputs, check_outputs
from offramp.policy import ExitPolicy, PolicyMenu
from offramp.policy.policy import check_policy
from offramp.simulation.queue import Served, fifo, fifo_by_deadline
from offramp.simulation.result import BY_DEADLINE, Simulation, SimulationRow
from offramp.simulation.traffic import (
    Arrivals,
    Bursts,
    Constant,
    FixedRate,
    Poisson,
    Traffic,
    Transmission,
    drawn_traffic,
)

Floats = NDArray[np.float64]
FULL, SMALLEST = "full network", "smallest exit"
AT_ONCE = Constant(ms=0)
_ROUNDING_MS = 1e-6  # rounding errors in sums of times are smaller


def simulate(
    outputs: ExitOutputs,
    policies: Mapping[str, ExitPolicy],
    *,
    arrivals: Arrivals,
    deadline_ms: float,
    uplink: Transmission = AT_ONCE,
    downlink: Transmission = AT_ONCE,
    requests: int = 100_000,
    reserve: float = 0.95,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Simulation:
    """Simulate the same requests for the full network, the smallest exit and each policy.

    Each request is about a sample of `outputs`, drawn with replacement. One server processes
    requests in order of arrival; an answer takes the measured times of the stages and branches that
    run. Each policy has two rows. In the first, it ignores deadlines. In the second ("by the
    deadline"), no stage starts that would end too late: the last exit in time answers, even one
    that never fires, and a request that no exit can answer in time is refused immediately.

    Args:
        outputs: Outputs with `stage_ms` and `branch_ms`.
        policies: Policies by name; names become rows.
        arrivals: When clients send requests.
        deadline_ms: Deadline, from sending a request to receiving its answer.
        uplink: Transmission time of requests, which counts towards the deadline.
        downlink: Transmission time of answers.
        requests: Number of requests.
        reserve: Quantile (0 to 1) of the downlink times that the server reserves when it takes
            deadlines into account.
        seed: Seed of samples, arrivals and transmission times, which all rows share.
        clock: Clock in seconds, for `Simulation.seconds`.

    Raises:
        OfframpError: The outputs contain no measured times.
        ShapeError: A policy is for other exits.
        PlanError: A number is out of range, times overflow, a menu is passed as a policy, or a
            policy has the name of another row.
    """
    started = clock()
    check_outputs(outputs)
    kinds, remedy = (FixedRate, Poisson, Bursts), "Give one such as FixedRate(per_second=100)."
    check_kind(arrivals, kinds, "arrivals", remedy)
    _check_numbers(deadline_ms, reserve, requests, seed)
    _check_policies(policies)
    outputs.costs("ms")
    samples = outputs.outputs.shape[1]
    traffic = drawn_traffic(arrivals, uplink, downlink, requests, samples, seed)
    due = traffic.sent_ms + deadline_ms - np.quantile(traffic.downlink_ms, reserve)
    measure = outputs.measure
    values = measure.values(outputs.outputs, outputs.labels)
    judge = _Judge(traffic, deadline_ms, values, _unanswered(outputs))
    rows = [judge.row(*served) for served in _served(outputs, policies, traffic, due)]
    chances = {"arrivals": arrivals, "uplink": uplink, "downlink": downlink}
    settings = {name: setting.model_dump(mode="json") for name, setting in chances.items()}
    return Simulation(
        rows=tuple(rows),
        measure=measure,
        exits=tuple(outputs.names),
        requests=requests,
        deadline_ms=deadline_ms,
        settings={**settings, "reserve": reserve, "seed": seed},
        seconds=clock() - started,
    )


def _check_numbers(deadline_ms: float, reserve: float, requests: int, seed: int) -> None:
    if not (isinstance(deadline_ms, Real) and math.isfinite(deadline_ms) and deadline_ms > 0):
        raise PlanError(
            f"deadline_ms={deadline_ms!r} is wrong: it must be a positive number of milliseconds."
        )
    if not 0 <= reserve <= 1:
        raise PlanError(
            f"reserve={reserve} is wrong: it must be between 0 and 1, a quantile of the downlink "
            "times."
        )
    if not isinstance(requests, Integral) or requests < 1:
        raise PlanError(
            f"requests={requests!r} is wrong: it must be a whole number, at least 1. High "
            "percentiles need about 10,000."
        )
    check_seed(seed)


def _check_policies(policies: Mapping[str, object]) -> None:
    remedy = "Give a mapping from names to policies: {'mine': policy}."
    check_kind(policies, Mapping, "policies", remedy)
    taken = sorted({FULL, SMALLEST, *(name + BY_DEADLINE for name in policies)} & set(policies))
    if taken:
        raise PlanError(f"{taken[0]!r} is already the name of another row. Rename the policy.")
    menus = [name for name, policy in policies.items() if isinstance(policy, PolicyMenu)]
    if menus:
        raise PlanError(
            f"{menus[0]!r} is a menu, but each row needs a single policy. Pass the policies of "
            "the menu: {str(limit): menu.at(limit) for limit in menu.limits}."
        )
    for name, policy in policies.items():
        check_policy(policy, f"policies[{name!r}]")


def _served(
    outputs: ExitOutputs, policies: Mapping[str, ExitPolicy], traffic: Traffic, due_ms: Floats
) -> Iterator[tuple[str, Served, Floats]]:
    """For each row: its name, the outcome of the requests and the FLOPs of each exit (E,)."""
    own_ms, own_flops = outputs.own_path_cost("ms"), outputs.own_path_cost()
    for name, exit in ((FULL, len(own_ms) - 1), (SMALLEST, int(own_ms.argmin()))):
        always = np.full(len(traffic.samples), exit, np.int64)
        yield name, fifo(traffic.arrivals_ms, always, own_ms), own_flops
    for name, policy in policies.items():
        leaves = policy.choose(outputs)[traffic.samples]
        ms, flops = _cost_when_due(policy, outputs, "ms"), _cost_when_due(policy, outputs, "flops")
        yield name, fifo(traffic.arrivals_ms, leaves, ms), flops
        served = fifo_by_deadline(traffic.arrivals_ms, leaves, ms, due_ms)
        yield name + BY_DEADLINE, served, flops


def _cost_when_due(policy: ExitPolicy, outputs: ExitOutputs, unit: CostUnit) -> Floats:
    """Cost of an answer from each exit, (E,), including its own branch even if it never fires."""
    branches = np.asarray(outputs.costs(unit)[1], np.float64)
    cost: Floats = policy.exit_cost(outputs, unit) + np.where(policy.runs, 0.0, branches)
    return cost


@dataclass(frozen=True, eq=False)
class _Judge:
    """Evaluates the outcome of requests from the measure of each answer, (E, samples).

    `unanswered` (samples,) is the value of a request without an answer.
    """

    traffic: Traffic
    deadline_ms: float
    values: Floats
    unanswered: Floats

    def row(self, name: str, served: Served, exit_flops: Floats) -> SimulationRow:
        """Evaluate the outcome of the requests."""
        refused = served.exits < 0
        done = served.ends_ms + self.traffic.downlink_ms
        response = np.where(refused, np.inf, done - self.traffic.sent_ms)
        missed = response > self.deadline_ms + _ROUNDING_MS
        samples = self.traffic.samples
        values = self.values[served.exits, samples]
        work = served.ends_ms - served.starts_ms
        shares = np.bincount(served.exits[~refused], minlength=len(exit_flops)) / len(missed)
        span = served.ends_ms.max() - self.traffic.arrivals_ms[0]
        p50, p95, p99 = np.quantile(response, [0.5, 0.95, 0.99], method="higher").tolist()
        return SimulationRow(
            name=name,
            value=float(np.where(missed, self.unanswered[samples], values).mean()),
            value_in_time=None if missed.all() else float(values[~missed].mean()),
            missed=float(missed.mean()),
            refused=float(refused.mean()),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            exits=tuple(shares.tolist()),
            mean_ms=float(work.mean()),
            mean_flops=float(shares @ exit_flops),
            utilisation=float(work.sum() / span) if span > 0 else 0.0,
        )


def _unanswered(outputs: ExitOutputs) -> Floats:
    """The value of a request without an answer, for each sample."""
    if outputs.task == "classification":
        return np.zeros(len(outputs.labels))
    labels = outputs.labels.astype(np.float64)
    error: Floats = np.abs(labels - np.median(labels))
    return error
