"""Measuring how long the graphs of a bundle take on this machine."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from offramp.answering.inputs import NONE
from offramp.bundle import Bundle, PartTimes, Times
from offramp.machine import processor_name
from offramp.progress import Progress, silent
from offramp.runtime.engines import Engine
from offramp.runtime.parts import Live, Parts
from offramp.timing import measure_ms

REPEATS = 20


_ROWS, _MUCH = 8, 2**28  # samples in a batch whose rows are copied, and bytes of all


def measured_times(
    bundle: Bundle,
    parts: Parts,
    *,
    batches: Sequence[int] = (1,),
    repeats: int = REPEATS,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time every graph that samples with all inputs need, on inputs of zeros.

    Args:
        bundle: The bundle.
        parts: Its graphs in the engine to be measured.
        batches: Sizes of batches.
        repeats: Runs of each graph that count.
        progress: Called after each graph.
        clock: In seconds.
    """
    manifest, engine = bundle.manifest, parts.engine
    stages = [each for each in manifest.stages if not each.without]
    total = len(batches) * (len(stages) + len(manifest.branches))
    found: list[PartTimes] = []
    for batch in batches:
        live: Live = parts.live(
            np.zeros((batch, *each.shape), each.dtype) for each in manifest.facts.inputs
        )
        for graph in (*stages, *manifest.branches):
            timing = measure_ms(
                partial(parts.run_graph, graph, live), warmup=2, repeats=repeats, clock=clock
            )
            if graph in stages:
                live = {**live, **parts.run_graph(graph, live)}
            found.append(
                PartTimes(
                    file=graph.file,
                    batch=batch,
                    median_ms=timing.median_ms,
                    high_ms=timing.high_ms,
                    repeats=repeats,
                )
            )
            progress(f"milliseconds with {engine.name}", len(found), total)
    return Times(
        engine=engine.name,
        precision=engine.precision,
        threads=engine.threads,
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        parts=tuple(found),
        row_ms=_row_ms(bundle, parts, clock),
    )


def _row_ms(bundle: Bundle, parts: Parts, clock: Callable[[], float]) -> tuple[float, ...]:
    """After each stage but the last, what taking one sample out of a batch costs the others."""
    facts, engine, found = bundle.manifest.facts, parts.engine, []
    live: Live = parts.live(np.zeros((1, *each.shape), each.dtype) for each in facts.inputs)
    for stage in range(len(facts.cuts)):
        live = parts.run_stage(stage, live, NONE, samples=0)
        arrays = {name: engine.array(value) for name, value in live.items()}
        rows = _ROWS if _ROWS * sum(each.nbytes for each in arrays.values()) < _MUCH else 2
        batch = {name: engine.value(np.repeat(each, rows, axis=0)) for name, each in arrays.items()}
        call = partial(parts.rows, batch, np.arange(1, rows))
        found.append(measure_ms(call, warmup=2, repeats=10, clock=clock).median_ms / (rows - 1))
    return tuple(found)


def times_here(times: Iterable[Times], engine: Engine) -> Times | None:
    """Those of the times that were measured with this engine on a machine like this one."""
    for each in times:
        if (each.engine, each.precision, each.threads, each.processor, each.cores) == (
            engine.name,
            engine.precision,
            engine.threads,
            processor_name(),
            os.cpu_count() or 1,
        ):
            return each
    return None
