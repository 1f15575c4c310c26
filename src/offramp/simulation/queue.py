"""Queue: when one server that takes requests in their order is done with each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.policy.decision import by_deadline, soonest

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Served:
    """What became of each request, in the order of service.

    Attributes:
        exits: (N,) the exit that answers; -1 where the server refuses, since no exit is in time.
        starts_ms: (N,) when service starts.
        ends_ms: (N,) when it ends; where refused, when it started.
    """

    exits: NDArray[np.int64]
    starts_ms: Floats
    ends_ms: Floats


def fifo(arrivals_ms: Floats, exits: NDArray[np.int64], exit_ms: Floats) -> Served:
    """Serve requests that arrive at ascending times (N,) until the exits (N,) they leave at.

    A request ends at its own work after the largest of the times at which the work from some
    earlier request on could begin (Lindley 1952), which is one cumulative maximum.
    """
    work = np.cumsum(exit_ms[exits])
    before = np.concatenate([[0.0], work[:-1]])
    ends = work + np.maximum.accumulate(arrivals_ms - before)
    return Served(exits, ends - exit_ms[exits], ends)


def fifo_by_deadline(
    arrivals_ms: Floats, leaves: NDArray[np.int64], exit_ms: Floats, due_ms: Floats
) -> Served:
    """Serve requests so that each is done when it is due (N,), or refused.

    How long one takes depends on how long it waited, so each has to be looked at in turn.
    """
    served_exits = np.empty(len(leaves), np.int64)
    starts = np.empty(len(leaves))
    free = -np.inf
    table = soonest(exit_ms).tolist()
    costs = [*exit_ms.tolist(), 0.0]  # a refused one, -1, takes no time
    requests = zip(arrivals_ms.tolist(), leaves.tolist(), due_ms.tolist(), strict=True)
    for index, (arrival, leave, due) in enumerate(requests):
        starts[index] = free = max(arrival, free)
        exit = by_deadline(leave, table, due - free)
        served_exits[index] = exit
        free += costs[exit]
    return Served(served_exits, starts, starts + np.array(costs)[served_exits])
