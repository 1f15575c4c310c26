"""Queue: when a single first-in, first-out server finishes each request."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.policy.decision import by_deadline, soonest

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Served:
    """The outcome of each request, in order of service.

    Attributes:
        exits: (N,) exit that answers; -1 if the server refuses because no exit can answer in time.
        starts_ms: (N,) time at which service starts.
        ends_ms: (N,) time at which service ends; equal to the start if refused.
    """

    exits: NDArray[np.int64]
    starts_ms: Floats
    ends_ms: Floats


def fifo(arrivals_ms: Floats, exits: NDArray[np.int64], exit_ms: Floats) -> Served:
    """Serve requests, given their ascending arrival times (N,) and the exits (N,) that answer them.

    The end of each service follows from Lindley's recursion (1952), computed here as one cumulative
    maximum instead of a loop.
    """
    work = np.cumsum(exit_ms[exits])
    before = np.concatenate([[0.0], work[:-1]])
    ends = work + np.maximum.accumulate(arrivals_ms - before)
    return Served(exits, ends - exit_ms[exits], ends)


def fifo_by_deadline(
    arrivals_ms: Floats, leaves: NDArray[np.int64], exit_ms: Floats, due_ms: Floats
) -> Served:
    """Serve requests so that each is finished by its due time (N,) or refused.

    The service time of a request depends on how long it waited, so this needs a loop.
    """
    served_exits = np.empty(len(leaves), np.int64)
    starts = np.empty(len(leaves))
    free = -np.inf
    table = soonest(exit_ms).tolist()
    costs = [*exit_ms.tolist(), 0.0]  # a refused request (-1) takes no time
    requests = zip(arrivals_ms.tolist(), leaves.tolist(), due_ms.tolist(), strict=True)
    for index, (arrival, leave, due) in enumerate(requests):
        starts[index] = free = max(arrival, free)
        exit = by_deadline(leave, table, due - free)
        served_exits[index] = exit
        free += costs[exit]
    return Served(served_exits, starts, starts + np.array(costs)[served_exits])
