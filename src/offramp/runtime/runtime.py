"""Runtime: a bundle that answers new samples, and really stops at the exit that answers."""

import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from offramp.answer import Answer
from offramp.answering import Asked, Route, Walk
from offramp.answering.inputs import absent_of
from offramp.answering.opened import Stacked
from offramp.answering.sample import Sample
from offramp.answering.walk import full_network
from offramp.arguments import check_kind
from offramp.bundle import Bundle, Times, open_bundle
from offramp.errors import PlanError
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Score
from offramp.progress import Progress, silent
from offramp.runtime.collecting import collected
from offramp.runtime.deadline import Attempt, Workers
from offramp.runtime.engines import Stop
from offramp.runtime.fastest import opened_parts
from offramp.runtime.leaving import Leaving
from offramp.runtime.measuring import measured_times, times_here
from offramp.runtime.pace import Pace
from offramp.runtime.parts import Live
from offramp.runtime.path import Begun, Path, Reached, walk_all
from offramp.runtime.split import Splitting

_REPEATS, _FEW_REPEATS = 10, 3


class Runtime(Splitting):
    """A bundle in an engine, without torch; several threads may use it at once.

    Args:
        bundle: A folder that `offramp export` wrote, or a `Bundle`.
        engine: `onnxruntime`, which may name a provider (`onnxruntime:cuda`), `openvino`, or
            `auto`, which measures those that are installed and takes the fastest that has the
            precision.
        precision: What the engine computes in: `fp32`, or `bf16` where engine and processor can.
        threads: CPU threads; None takes one for each core.
        lazy: Load a graph when it is first needed. The first answers of later exits then take
            longer, and a bundle whose early exits nearly always answer needs less memory.
        scores: Scores of your own that the bundle's policies use.
        clock: In seconds, for the times in an answer.

    Attributes:
        engine: The engine's name as given, or that of the one that `auto` took.
        chosen_because: Why `auto` took its engine, with times; empty for an engine that was named.

    Raises:
        BundleError: The folder is not a bundle that this version reads, or a file was changed.
        PlanError: There is no such engine or precision here.
        ExtraError: The engine is not installed.
    """

    def __init__(
        self,
        bundle: str | pathlib.Path | Bundle,
        *,
        engine: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
        lazy: bool = False,
        scores: Sequence[Score] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_kind(bundle, (str, pathlib.Path, Bundle), "bundle", "Give the folder of a bundle.")
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, scores)
        opening = opened_parts(self.bundle, engine, precision, threads, lazy=lazy, clock=clock)
        self.parts, self.engine, self.chosen_because = opening
        self._workers, self._warming = Workers(), Lock()
        self._pace: Pace | None = None
        self._leaving = Leaving.of(self.bundle.manifest, self.known_times)
        super().__init__(self.bundle.manifest.facts, self.source(), self.bundle.policies, clock)

    def source(self) -> dict[str, Any]:
        """Engine, precision and digest of the model, for which a promise holds."""
        engine = self.parts.engine
        return {
            "engine": engine.name,
            "precision": engine.precision,
            "model": self.bundle.manifest.model,
        }

    def collect(
        self,
        data: Any,
        *,
        batch_size: int = 64,
        timings: Times | None = None,
        split: str = "",
        without: int | str | Iterable[int | str] = (),
        progress: Progress = silent,
    ) -> ExitOutputs:
        """Collect the answers of every exit on a data set, with costs, as plain arrays.

        A promise that `calibrate` makes on them holds for this engine and precision.

        Args:
            data: A data set of (input or tuple of inputs, label), or a pair of arrays. It has `len`
                and `[i]`, and may have `ids`, `groups` and `clusters` of one entry per sample. An
                input is whatever `run` takes, such as the path of a file.
            batch_size: Samples per pass; the last batch is shorter.
            timings: Measured times, of `offramp.runtime.measuring.measured_times`. None takes those
                in the bundle that were measured in this engine on such a machine; if there are
                none, the result has no milliseconds.
            split: Name of the split, stored in `source`.
            without: Inputs to leave out for all samples, named or counted from 0. The result holds
                only the exits that answer without them, and what they need is not computed. Where
                the network itself needs one, the last of these exits is its end, and its branch is
                counted in its stage.
            progress: Called after each batch.

        `scores` come from the error predictors, if every branch has one.

        Raises:
            DataError: It is not a data set, a sample cannot be read or lacks an input that an exit
                needs, a label does not fit, or no exit answers without the inputs left out.
            ShapeError: A sample is not what the model reads.
            PlanError: There is no such input, or timings are given, which hold for all inputs.

        Warns:
            DoubtWarning: The final exit hardly does better than guessing, is far below an early
                exit, or gives probabilities; with likely causes.
        """
        return collected(
            self.bundle.manifest,
            self.parts,
            data,
            source=self.source(),
            batch_size=batch_size,
            timings=timings,
            split=split,
            without=without,
            progress=progress,
        )

    def run(
        self,
        sample: Sample,
        policy: ExitPolicy | float | None = None,
        deadline_ms: float | None = None,
    ) -> Answer:
        """Answer one sample, by a deadline if there is one.

        A stage that is expected to end after the deadline is not started; the last exit that
        answers in time then answers, whether its threshold is reached or not. What still runs at
        the deadline is stopped, and the best answer so far is returned. Times are predicted from
        those of the latest runs; before the first deadline every graph is run a few times.

        Args:
            sample: As for `Opened.run`.
            policy: As for `Opened.run`. Exits that it disables answer where time is short.
            deadline_ms: Milliseconds from this call until its return.

        Returns:
            The answer. `interrupted` says that the deadline cut it short; it is then not the
            policy's own, so a promise, which is about the average of those, does not cover it.

        Raises:
            DeadlineError: The deadline is shorter than the first exit needs.
            PlanError: It is not a positive number.
        """
        if deadline_ms is None:
            return super().run(sample, policy)
        _check_deadline(deadline_ms)
        self.warm_up()
        started = self._clock()
        path = self._path(sample, policy, stop := Stop())
        prepared_ms = 1000 * (self._clock() - started)
        due = started + deadline_ms / 1000
        found = self._workers.answer(Attempt(path, due, self._clock, stop))
        answer = self._reached(path, found, prepared_ms)
        total_ms = 1000 * (self._clock() - started)
        return replace(answer, total_ms=total_ms, interrupted=not found.fired)

    def anytime(self, sample: Sample, policy: ExitPolicy | float | None = None) -> Iterator[Answer]:
        """Answers of one exit after another, each computed when it is asked for.

        Whoever stops asking stops the work. All exits answer, also those that the policy disables;
        `promised` is true for the one that the policy would choose.

        Args:
            sample: As for `Opened.run`.
            policy: As for `Opened.run`; it decides how the answers are scored.
        """
        started = self._clock()
        path = self._path(sample, policy, None)
        prepared_ms, fired = 1000 * (self._clock() - started), False
        for found in walk_all(path):
            own = found.fired and not fired
            fired = fired or found.fired
            yield self._reached(path, replace(found, fired=own), prepared_ms)

    def warm_up(self) -> None:
        """Load every graph and learn how long it takes here; done once, before a first deadline.

        Where the bundle's times were measured on such a machine with this engine, precision and
        number of threads, a few runs are enough.
        """
        with self._warming:
            if self._pace is None:
                repeats = _REPEATS if self.known_times is None else _FEW_REPEATS
                found = measured_times(self.bundle, self.parts, repeats=repeats, clock=self._clock)
                self._pace = Pace({each.file: each.high_ms for each in found.parts})

    def needed_ms(self) -> dict[str, float]:
        """Milliseconds within which each exit, or a later one, is expected to answer here."""
        self.warm_up()
        zeros = tuple(np.zeros(each.shape, each.dtype) for each in self.facts.inputs)
        policy = full_network(self.facts.task, self.facts.names)
        ahead, expected = self._path(zeros, policy, None).needed_ms()
        return {policy.names[exit]: ms for exit, ms in zip(ahead, expected, strict=True)}

    @property
    def known_times(self) -> Times | None:
        """Times in the bundle that apply here; None if they were measured elsewhere, or not."""
        return times_here(self.bundle.manifest.times, self.parts.engine)

    @property
    def measured_elsewhere(self) -> str:
        """Says where the bundle's times were measured, if that was not here; else empty."""
        times = self.bundle.manifest.times
        if self.known_times is not None or not times:
            return ""
        there, engine = times[0], self.parts.engine
        return (
            f"the times in {self.bundle.place} were measured on {there.processor} "
            f"({there.cores} cores) with {there.engine} in {there.precision} on {there.threads} "
            f"threads; here it is {engine.name} in {engine.precision} on {engine.threads} threads, "
            "which is measured before the first deadline"
        )

    def _path(self, sample: Sample, policy: ExitPolicy | float | None, stop: Stop | None) -> Path:
        prepared = self._prepared(sample, policy)
        rule = self._rule(policy, absent_of(prepared)).policy
        inputs = [None if each is None else each[None] for each in prepared]
        return self._begun(rule, Begun(absent_of(prepared), self.parts.live(inputs)), stop)

    def _begun(self, rule: ExitPolicy, begun: Begun, stop: Stop | None) -> Path:
        pace = self._pace or Pace({})
        return Path(self.parts, self.facts, rule, begun, pace, self._clock, stop)

    def _reached(self, path: Path, found: Reached, prepared_ms: float) -> Answer:
        return self._as_answer(
            found.route,
            path.policy,
            prepared_ms,
            path.absent,
            flops=found.flops,
            fired=found.fired,
        )

    @property
    def stage_runs(self) -> tuple[int, ...]:
        """How often each stage has run, for one sample or for several at once."""
        return self.parts.stage_runs

    def close(self) -> None:
        """Stop what runs, and let go of the engine; the runtime cannot answer any more."""
        self._workers.close()
        self.parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _may_run_together(self) -> bool:
        return self.bundle.manifest.apart

    def _routes(self, inputs: Stacked, policy: ExitPolicy) -> list[Route]:
        absent = absent_of(inputs)
        num = next(len(each) for each in inputs if each is not None)
        walk = Walk(policy, num, self._clock)
        live, there = self.parts.live(inputs), np.arange(num)
        exits = {name: number for number, name in enumerate(policy.names)}
        for stage, name in enumerate(self.parts.ends):
            live = self.parts.run_stage(stage, live, absent, samples=num)
            staying = walk.past(exits.get(name), partial(self._asked, name, live, there, num))
            there = there[staying]
            if len(there) == 0:
                break
            if len(there) < num and self._leaving.pays(stage, len(there), num):
                live = self.parts.rows(live, there)
                there, num = np.arange(len(there)), len(there)
        return walk.routes

    def _asked(self, name: str, live: Live, there: NDArray[np.int64], num: int) -> Asked:
        """What an exit answers, for the samples of the batch that have not left."""
        outputs, own = self.parts.ask(name, live)
        if len(there) == num:
            return outputs, own
        return outputs[there], None if own is None else own[there]


def _check_deadline(deadline_ms: float) -> None:
    if not isinstance(deadline_ms, Real) or not math.isfinite(deadline_ms) or deadline_ms <= 0:
        raise PlanError(
            f"deadline_ms={deadline_ms!r} is wrong: it must be a positive number of milliseconds."
        )
