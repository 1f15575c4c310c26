"""Measures how long a call takes."""

import time
from collections.abc import Callable

import numpy as np
import torch

from offramp.cost import Timing
from offramp.errors import PlanError


def measure_ms(
    call: Callable[[], object],
    *,
    warmup: int = 5,
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
    device: torch.device | str = "cpu",
) -> Timing:
    """Time `call` one by one, after `warmup` calls that do not count.

    Args:
        call: What to time.
        warmup: Calls before the measurement.
        repeats: Calls that are measured.
        clock: Gives seconds.
        device: Where `call` computes; work queued there is waited for.

    Raises:
        PlanError: `repeats` is below 1 or `warmup` below 0.
    """
    if repeats < 1 or warmup < 0:
        raise PlanError(
            f"repeats={repeats} and warmup={warmup} measure nothing; "
            "use at least 1 repeat and no fewer than 0 warm-up calls."
        )
    finish = _finish(torch.device(device))
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


def _finish(device: torch.device) -> Callable[[], object]:
    """A function that returns when the device has done what was asked of it."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
