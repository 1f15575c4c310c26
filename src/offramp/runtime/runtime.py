"""Runtime: a bundle that answers new samples, and really stops at the exit that answers."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from offramp.answering import Asked, Opened, Route, Walk
from offramp.answering.inputs import absent_of
from offramp.answering.opened import Stacked
from offramp.arguments import check_kind
from offramp.bundle import Bundle, Times, open_bundle
from offramp.outputs import ExitOutputs
from offramp.policy import ExitPolicy, Score
from offramp.progress import Progress, silent
from offramp.runtime.collecting import collected
from offramp.runtime.engines import open_engine
from offramp.runtime.parts import Live, Parts
from offramp.spec import FINAL
from offramp.task import surest


class Runtime(Opened):
    """A bundle in an engine, without torch; several threads may use it at once.

    Args:
        bundle: A folder that `offramp export` wrote, or a `Bundle`.
        engine: `onnxruntime`, which may name a provider (`onnxruntime:cuda`), `openvino`, or
            `auto`, which measures those that are installed and takes the fastest.
        precision: What the engine computes in: `fp32`, or `bf16` where engine and processor can.
        threads: CPU threads; None takes one for each core.
        lazy: Load a graph when it is first needed. The first answers of later exits then take
            longer, and a bundle whose early exits nearly always answer needs less memory.
        scores: Scores of your own that the bundle's policies use.
        clock: In seconds, for the times in an answer.

    Raises:
        BundleError: The folder is not a bundle that this version reads, or a file was changed.
        PlanError: There is no such engine or precision here.
        ExtraError: The engine is not installed.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        engine: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
        lazy: bool = False,
        scores: Sequence[Score] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_kind(bundle, (str, Path, Bundle), "bundle", "Give the folder of a bundle.")
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle, scores)
        opened = open_engine(engine, precision, threads)
        self.parts = Parts(self.bundle, opened, lazy=lazy)
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
            DataError: It is no data set, a sample cannot be read or lacks an input that an exit
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

    @property
    def stage_runs(self) -> tuple[int, ...]:
        """How often each stage has run, for one sample or for several at once."""
        return self.parts.stage_runs

    def close(self) -> None:
        """Let go of the engine and its memory; the runtime cannot answer any more."""
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
        live = self.parts.live(inputs)
        exits = {name: number for number, name in enumerate(policy.names)}
        for stage, name in enumerate(self.parts.ends):
            live = self.parts.run_stage(stage, live, absent)
            staying = walk.past(exits.get(name), partial(self._asked, name, live))
            if not staying.any():
                break
            if not staying.all():
                live = self.parts.rows(live, staying)
        return walk.routes

    def _asked(self, name: str, live: Live) -> Asked:
        """What an exit answers."""
        if name != FINAL:
            return self.parts.run_branch(name, live)
        outputs, task = self.parts.final(live), self.facts.task
        predicts = self.facts.predicts_error
        return outputs, np.full(len(outputs), surest(task)) if predicts else None
