"""Measures how long a call takes."""

import time
from collections.abc import Callable

import numpy as np

from offramp.cost import Timing
from offramp.errors import PlanError


def measure_ms(
    call: Callable[[], object],
    *,
    warmup: int = 5,
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
    finish: Callable[[], object] = lambda: None,
) -> Timing:
    """Measure the time of single calls, after `warmup` calls that do not count.

    Args:
        call: The function to time.
        warmup: Number of calls before the measurement.
        repeats: Number of measured calls.
        clock: Clock in seconds.
        finish: Waits for work that `call` has queued on a device; measured with each call.

    Raises:
        PlanError: `repeats` is below 1 or `warmup` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise PlanError(
            f"repeats={repeats} and warmup={warmup} are wrong: "
            "use at least 1 repeat and 0 or more warm-up calls."
        )
    for _ in range(warmup):
        call()
    finish()
    took_ms = [_once_ms(call, finish, clock) for _ in range(repeats)]
    low, median, high = np.percentile(took_ms, (10, 50, 90))
    return Timing(float(median), float(low), float(high), repeats, warmup)


def _once_ms(
    call: Callable[[], object], finish: Callable[[], object], clock: Callable[[], float]
) -> float:
    start = clock()
    call()
    finish()
    return 1000 * (clock() - start)
