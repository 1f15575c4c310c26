"""Fastest: the installed engine that runs a bundle's stages in the least time on this machine."""

import logging
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple, get_args

import numpy as np

from offramp.bundle import Bundle
from offramp.errors import ExtraError, PlanError
from offramp.runtime.engines import Engine, open_engine
from offramp.runtime.engines.choice import EngineName
from offramp.runtime.parts import Parts

AUTO = "auto"
"""Name that stands for the fastest engine."""
_RUNS, _SECONDS = 10, 1.0

_log = logging.getLogger(__name__)


class Opening(NamedTuple):
    """Graphs in an engine.

    Attributes:
        parts: The graphs.
        name: The engine's name, as `open_engine` takes it.
        because: Why `auto` took it; empty for an engine that was named.
    """

    parts: Parts
    name: str
    because: str


def opened_parts(
    bundle: Bundle,
    engine: str,
    precision: str,
    threads: int | None,
    *,
    lazy: bool,
    clock: Callable[[], float],
) -> Opening:
    """The graphs of a bundle in an engine that is named, or in the fastest one.

    `auto` runs all stages in each installed engine in turn, at most ten times and for about a
    second, and takes the one with the smallest median. It loads all graphs, also if `lazy`, and
    never changes the precision.

    Raises:
        PlanError: There is no such engine or precision here.
        ExtraError: The engine is not installed.
    """
    if engine != AUTO:
        return Opening(
            Parts(bundle, open_engine(engine, precision, threads), lazy=lazy), engine, ""
        )
    names, engines = zip(*_installed(precision, threads), strict=True)
    rivals = [Parts(bundle, each) for each in engines]
    if len(rivals) == 1:
        because = f"{rivals[0].engine.name} is the only engine here that has {precision}"
        _log.info("%s", because)
        return Opening(rivals[0], names[0], because)
    took = _medians(bundle, rivals, clock)
    order = sorted(range(len(rivals)), key=took.__getitem__)
    for place in order[1:]:
        rivals[place].close()
    times = ", ".join(f"{rivals[place].engine.name} {took[place]:.3g} ms" for place in order)
    because = f"{rivals[order[0]].engine.name} is the fastest engine here in {precision} ({times})"
    _log.info("%s", because)
    return Opening(rivals[order[0]], names[order[0]], because)


def _installed(precision: str, threads: int | None) -> Iterator[tuple[str, Engine]]:
    """Every engine that starts here; the error of the first one if none does."""
    refusals: list[PlanError | ExtraError] = []
    started = 0
    for name in get_args(EngineName):
        try:
            engine = open_engine(name, precision, threads)
        except (PlanError, ExtraError) as error:
            refusals.append(error)
            continue
        started += 1
        yield name, engine
    if not started:
        raise refusals[-1]


def _medians(
    bundle: Bundle, rivals: Sequence[Parts], clock: Callable[[], float]
) -> dict[int, float]:
    """Median milliseconds of all stages in each, in turns so that drift concerns all alike."""
    for parts in rivals:
        _run_stages(bundle, parts)
    began = clock()
    took: dict[int, list[float]] = {place: [] for place in range(len(rivals))}
    for _ in range(_RUNS):
        for place, parts in enumerate(rivals):
            before = clock()
            _run_stages(bundle, parts)
            took[place].append(1000 * (clock() - before))
        if clock() - began > _SECONDS:
            break
    return {place: median(each) for place, each in took.items()}


def _run_stages(bundle: Bundle, parts: Parts) -> None:
    """Answer zeros by the whole network; `stage_runs` does not count it."""
    inputs = bundle.manifest.facts.inputs
    live = parts.live(np.zeros((1, *each.shape), each.dtype) for each in inputs)
    for graph in bundle.manifest.stages:
        if not graph.without:
            live = {**live, **parts.run_graph(graph, live)}
    parts.final(live)
