from itertools import accumulate

import pytest
import torch

from offramp.compute import wait_for
from offramp.cost import Timing
from offramp.errors import PlanError
from offramp.timing import measure_ms


def test_a_timing_is_the_median_and_the_outer_deciles_of_the_calls_after_the_warmup() -> None:
    lasting_ms = list(range(11))
    reads = iter(list(accumulate(step for ms in lasting_ms for step in (1.0, ms / 1000))))
    calls = []
    timing = measure_ms(
        lambda: calls.append(1), warmup=3, repeats=len(lasting_ms), clock=lambda: next(reads)
    )
    assert len(calls) == 3 + 11
    assert next(reads, None) is None  # the clock is read around each measured call only
    assert (timing.repeats, timing.warmup) == (11, 3)
    values = (timing.low_ms, timing.median_ms, timing.high_ms)
    assert values == pytest.approx((1.0, 5.0, 9.0))


def test_one_repeat_without_warmup_is_a_timing() -> None:
    reads = iter((1.0, 1.25))
    assert measure_ms(int, warmup=0, repeats=1, clock=lambda: next(reads)) == Timing(
        250.0, 250.0, 250.0, repeats=1, warmup=0
    )


@pytest.mark.parametrize(("warmup", "repeats"), [(0, 0), (-1, 5)])
def test_measuring_nothing_is_refused(warmup: int, repeats: int) -> None:
    with pytest.raises(PlanError, match=f"repeats={repeats} and warmup={warmup}"):
        measure_ms(int, warmup=warmup, repeats=repeats)


@pytest.mark.gpu
def test_work_queued_on_a_gpu_is_waited_for() -> None:
    matrix = torch.randn(4096, 4096, device="cuda")

    def multiply() -> None:
        for _ in range(20):
            matrix @ matrix

    queued = measure_ms(multiply, warmup=2, repeats=5).median_ms
    done = measure_ms(multiply, warmup=2, repeats=5, finish=wait_for("cuda")).median_ms
    assert done > 2 * queued
