"""Measuring what the exits of a bundle cost and save on this machine."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.answering.walk import full_network
from offramp.bundle import Bundle, Times
from offramp.bundle.timed import save_times
from offramp.cost import own_path
from offramp.errors import BundleError, ExtraError, PlanError
from offramp.machine import processor_name
from offramp.progress import Progress, silent
from offramp.runtime.bench.cold import ColdStart, cold_starts
from offramp.runtime.bench.mix import mix_of
from offramp.runtime.bench.one_graph import as_one_graph
from offramp.runtime.bench.result import Bench, ExitRow, StaticRow, Throughput, Took
from offramp.runtime.bench.turns import times_in_turns
from offramp.runtime.bench.verdict import Verdict, judged
from offramp.runtime.bench.ways import leaving_at, leaving_in_shares, straight_to
from offramp.runtime.measuring import measured_times
from offramp.runtime.runtime import Runtime
from offramp.spec import FINAL
from offramp.task import measure_of

BATCHES = (1, 2, 4, 8, 16, 32)
REPEATS = 30
_ONE, _WHOLE, _EXITS = "one graph", "whole", "exits"
_FEWEST = 3


def bench_bundle(
    bundle: str | Path | Bundle,
    *,
    engine: str = "onnxruntime",
    precision: str = "fp32",
    threads: int | None = None,
    batches: Sequence[int] = BATCHES,
    repeats: int = REPEATS,
    cold: bool = True,
    save: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> Bench:
    """Measure the exits of a bundle against its whole network, in turns, on random inputs.

    Which exit answers is set, not computed from the inputs: latencies are those of each exit, and
    throughput is that of a mix of exits in which as many samples leave at each as do under the
    bundle's policy on its stored test answers. Without such answers the shares are equal.

    Args:
        bundle: A folder that `offramp export` wrote, or a `Bundle`.
        engine: As for `Runtime`.
        precision: As for `Runtime`.
        threads: As for `Runtime`.
        batches: Sizes of batches for the throughput.
        repeats: Rounds that are timed; fewer for large batches.
        cold: Whether to start new processes that measure first answers and memory.
        save: Whether to store the times of the graphs in the bundle.
        seed: Of the inputs.
        progress: Called with the state of each kind of work.
        clock: In seconds.

    Raises:
        BundleError: The folder is not a bundle, or cannot be written.
        PlanError: A number is below 1, or there is no such engine or precision here.
        ExtraError: The engine is not installed.
    """
    if repeats < 1 or not batches or min(batches) < 1:
        raise PlanError(
            f"repeats={repeats} and batches={list(batches)} are wrong: use 1 or more rounds and "
            "sizes of batches."
        )
    with Runtime(bundle, engine=engine, precision=precision, threads=threads) as runtime:
        if save:
            times = measured_times(runtime.bundle, runtime.parts, progress=progress, clock=clock)
            _save(runtime, times)
        with _Case(runtime, seed) as case:
            took = case.latencies(repeats, clock, progress)
            rates = case.throughput(batches, repeats, clock, progress)
            starts = case.cold_starts(progress) if cold else ()
            return case.result(took, rates, starts)


def _save(runtime: Runtime, times: Times) -> None:
    folder = runtime.bundle.folder
    if folder is None:
        raise BundleError("times can be saved in a bundle in a folder, and this one is in memory.")
    save_times(folder, times)


_Took = Mapping[str, NDArray[np.float64]]


class _Case:
    """A bundle, its whole network as one graph, and inputs for both.

    Attributes:
        notes: What cannot be measured, and why.
    """

    def __init__(self, runtime: Runtime, seed: int) -> None:
        self._runtime, self._facts = runtime, runtime.facts
        self._mix = mix_of(runtime)
        self._draw = np.random.default_rng(seed)
        self._full = full_network(self._facts.task, self._facts.names)
        self.notes: list[str] = []
        self._whole: Runtime | None = None
        try:
            engine = runtime.parts.engine
            self._whole = Runtime(
                as_one_graph(runtime.bundle),
                engine=runtime.engine,
                precision=engine.precision,
                threads=engine.threads,
            )
        except ExtraError as error:
            self.notes.append(f"The whole network was not measured as one graph: {error}")
        if not runtime.bundle.manifest.apart:
            self.notes.append(
                "Batches run one sample at a time, since the samples of a batch cannot be "
                "separated in this network."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._whole is not None:
            self._whole.close()

    def latencies(self, repeats: int, clock: Callable[[], float], progress: Progress) -> _Took:
        """Milliseconds (repeats,) of each way for one sample."""
        [sample], policy = self._samples(1), self._mix.policy
        ways = {_own(name): straight_to(self._full, n) for n, name in enumerate(policy.names)}
        enabled = [*np.flatnonzero(policy.enabled).tolist(), len(policy.names) - 1]
        ways |= {_passed(policy.names[exit]): leaving_at(policy, exit) for exit in enabled}
        calls: dict[str, Callable[[], object]] = {
            name: partial(self._runtime.run, sample, way) for name, way in ways.items()
        }
        if self._whole is not None:
            calls[_ONE] = partial(self._whole.run, sample)
        return times_in_turns(
            calls,
            repeats=repeats,
            clock=clock,
            after_round=lambda done: progress("latency of each exit", done, repeats + 1),
        )

    def throughput(
        self,
        batches: Sequence[int],
        repeats: int,
        clock: Callable[[], float],
        progress: Progress,
    ) -> tuple[Throughput, ...]:
        """Samples per second by size of batch."""
        found = []
        for done, batch in enumerate(batches, 1):
            samples = self._samples(batch)
            mixed = leaving_in_shares(self._mix.policy, self._mix.shares)
            calls: dict[str, Callable[[], object]] = {
                _WHOLE: partial(self._runtime.run_batch, samples, self._full),
                _EXITS: partial(self._runtime.run_batch, samples, mixed),
            }
            if self._whole is not None:
                calls[_ONE] = partial(self._whole.run_batch, samples)
            rounds = max(_FEWEST, repeats // batch)
            took = times_in_turns(calls, repeats=rounds, clock=clock)
            rate = {name: 1000 * batch / float(each.mean()) for name, each in took.items()}
            found.append(Throughput(batch, rate[_WHOLE], rate[_EXITS], rate.get(_ONE)))
            progress("throughput of each batch size", done, len(batches))
        return tuple(found)

    def cold_starts(self, progress: Progress) -> tuple[ColdStart, ...]:
        """First answers in new processes; a note says why if there are none."""
        try:
            return tuple(cold_starts(self._runtime, progress))
        except BundleError as error:
            self.notes.append(f"Cold starts were not measured: {error}")
            return ()

    def result(
        self, took: _Took, throughput: tuple[Throughput, ...], cold: tuple[ColdStart, ...]
    ) -> Bench:
        """Everything that was found, with its verdict."""
        facts, engine, mix = self._facts, self._runtime.parts.engine, self._mix
        middle = {name: float(np.median(each)) for name, each in took.items()}
        verdict = self._judged(middle)
        one, staged = took.get(_ONE), took[_own(FINAL)]
        return Bench(
            bundle=self._runtime.bundle.place,
            engine=engine.name,
            precision=engine.precision,
            threads=engine.threads,
            processor=processor_name(),
            cores=os.cpu_count() or 1,
            repeats=len(staged),
            measure=measure_of(facts.task, facts.class_names),
            policy=mix.policy_text,
            mix_from=mix.whence,
            exits=self._exits(took, middle, verdict),
            one_graph=None if one is None else Took.of(one),
            staged_ratio=None if one is None else float(np.median(staged / one)),
            static=self._static(middle[_own(FINAL)]),
            throughput=throughput,
            cold=cold,
            verdict=verdict,
            notes=tuple(self.notes),
        )

    def _judged(self, middle: Mapping[str, float]) -> Verdict:
        """The verdict on the exits that the policy enables."""
        pairs = list(zip(self._facts.names, self._mix.shares, strict=True))
        asked = [(name, share) for name, share in pairs if _passed(name) in middle]
        found = judged(
            [name for name, _ in asked],
            [middle[_own(name)] for name, _ in asked],
            [middle[_passed(name)] for name, _ in asked],
            [share for _, share in asked],
            middle.get(_ONE),
        )
        if not self._mix.assumed:
            return found
        return replace(found, sentence=f"{found.sentence}; this assumes equal shares of the exits")

    def _exits(
        self, took: _Took, middle: Mapping[str, float], verdict: Verdict
    ) -> tuple[ExitRow, ...]:
        facts, mix = self._facts, self._mix
        flops = own_path(*facts.flops(facts.names))
        return tuple(
            ExitRow(
                name=name,
                value=mix.values.get(name),
                flops=int(own),
                flops_share=float(own / flops[-1]),
                took=Took.of(took[_own(name)]),
                time_share=middle[_own(name)] / middle[_own(FINAL)],
                policy_ms=middle.get(_passed(name)),
                share=share,
                remark=_remark(name, verdict),
            )
            for name, own, share in zip(facts.names, flops, mix.shares, strict=True)
        )

    def _static(self, whole_ms: float) -> tuple[StaticRow, ...]:
        """The smaller static models that the run was compared with, as far as it was."""
        whole = sum(self._facts.stage_flops())
        return tuple(
            StaticRow(
                name=str(each["name"]),
                value=float(each["value"]),
                flops=int(each["flops"]),
                estimated_ms=whole_ms * int(each["flops"]) / whole,
                note=str(each.get("note", "")),
            )
            for each in self._runtime.bundle.manifest.about.get("rivals", ())
        )

    def _samples(self, count: int) -> list[tuple[NDArray[Any], ...]]:
        """Random samples; inputs that are not floats are zeros."""
        return [
            tuple(
                self._draw.standard_normal(each.shape).astype(each.dtype)
                if "float" in each.dtype
                else np.zeros(each.shape, each.dtype)
                for each in self._facts.inputs
            )
            for _ in range(count)
        ]


def _own(name: str) -> str:
    return f"own path: {name}"


def _passed(name: str) -> str:
    return f"with passed: {name}"


def _remark(name: str, verdict: Verdict) -> str:
    if name == FINAL:
        return ""
    if name in verdict.kept:
        return "yes"
    return f"no: {verdict.reasons.get(name, 'the policy disables it')}"
