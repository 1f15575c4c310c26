"""Parts: the graphs of a bundle, loaded into an engine, run one stage or branch at a time."""

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.answering import Asked
from offramp.answering.inputs import Numbers
from offramp.bundle import BranchGraph, Bundle
from offramp.bundle.manifest import OUTPUTS
from offramp.bundle.manifest import Graph as Described
from offramp.errors import BundleError
from offramp.runtime.engines import Engine, Graph, Stop
from offramp.spec import FINAL
from offramp.task import surest

Live = Mapping[str, Any]
"""The engine's own tensors that are alive between two stages, by name."""


class Parts:
    """The stages and branches of a bundle in an engine; several threads may run them at once.

    Args:
        bundle: The bundle.
        engine: What runs its graphs.
        lazy: Load a graph when it is first needed, not at once.

    Attributes:
        ends: What each stage ends with: a cut, or `final` for the last.
    """

    def __init__(self, bundle: Bundle, engine: Engine, *, lazy: bool = False) -> None:
        self.engine = engine
        self._bundle, self._manifest = bundle, bundle.manifest
        self.ends = (*bundle.manifest.facts.cuts, FINAL)
        self._stages = {
            (each.stage, frozenset(each.without)): each for each in bundle.manifest.stages
        }
        self._branches = {each.exit: each for each in bundle.manifest.branches}
        self._used = [bundle.manifest.used_after(stage) for stage in range(len(self.ends))]
        self._graphs: dict[str, Graph] = {}
        self._closed = False
        self._loading = Lock()
        self._counting = Lock()
        self._runs = [0] * len(self.ends)
        self._samples = [0] * len(self.ends)
        for each in () if lazy else self._manifest.graphs:
            self._graph(each)

    @property
    def stage_runs(self) -> tuple[int, ...]:
        """How often each stage has run, for one sample or for several at once."""
        with self._counting:
            return tuple(self._runs)

    def stage_file(self, stage: int, absent: Numbers) -> str:
        """File of a stage's graph; empty if nothing of it can be computed."""
        described = self._stages.get((stage, absent))
        return "" if described is None else described.file

    def branch_file(self, exit: str) -> str:
        """File of an early exit's branch."""
        return self._branches[exit].file

    def live(self, inputs: Iterable[NDArray[Any] | None]) -> Live:
        """The inputs of samples as the engine's own tensors; those that are None are left out.

        Raises:
            BundleError: The parts were closed.
        """
        self._check_open()
        facts = self._manifest.facts
        return {
            each.name: self.engine.value(np.ascontiguousarray(array, each.dtype))
            for each, array in zip(facts.inputs, inputs, strict=True)
            if array is not None
        }

    @property
    def stage_samples(self) -> tuple[int, ...]:
        """How many samples each stage has run for."""
        with self._counting:
            return tuple(self._samples)

    def run_stage(
        self,
        stage: int,
        live: Live,
        absent: Numbers,
        stop: Stop | None = None,
        *,
        samples: int = 1,
    ) -> Live:
        """Run a stage on what is alive; returns what is alive after it, and what its branch reads.

        Args:
            stage: Its number.
            live: What is alive before it.
            absent: Inputs that all samples lack.
            stop: Ends it from another thread.
            samples: How many there are; 0 where the run is a measurement and does not count.

        Raises:
            Stopped: The stop was requested before the end.
        """
        described = self._stages.get((stage, absent))
        found = {} if described is None else self.run_graph(described, live, stop)
        with self._counting:
            self._runs[stage] += samples > 0
            self._samples[stage] += samples
        return {
            name: value for name, value in {**live, **found}.items() if name in self._used[stage]
        }

    def run_branch(self, exit: str, live: Live, stop: Stop | None = None) -> Asked:
        """Answers (B, K) of an early exit's branch, and its scores (B,), if it gives any.

        Raises:
            Stopped: The stop was requested before the end.
        """
        described = self._branches[exit]
        missing = [name for name in described.inputs if name not in live]
        if missing:
            live = {**live, **self._absent(described, live)}
        outputs, *scores = map(self.engine.array, self.run_graph(described, live, stop).values())
        return outputs, scores[0].astype(np.float64) if scores else None

    def ask(self, end: str, live: Live, stop: Stop | None = None) -> Asked:
        """What an exit answers: the branch of a cut, or the network itself after its last stage.

        Where branches give scores of their own, the network's is the largest that there is.

        Raises:
            Stopped: The stop was requested before the end.
        """
        if end != FINAL:
            return self.run_branch(end, live, stop)
        outputs, facts = self.final(live), self._manifest.facts
        own = np.full(len(outputs), surest(facts.task)) if facts.predicts_error else None
        return outputs, own

    def final(self, live: Live) -> NDArray[np.float32]:
        """Answers (B, K) of the network itself, after its last stage."""
        return self.engine.array(live[OUTPUTS])

    def rows(self, live: Live, staying: NDArray[np.bool_] | NDArray[np.int64]) -> Live:
        """The samples of a batch that stay, by a mask (B,) or by their places, and no others."""
        return {
            name: self.engine.value(self.engine.array(value)[staying])
            for name, value in live.items()
        }

    def compute(self, file: str, values: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
        """What one graph gives, in the order of its outputs, for its inputs in their order."""
        described = next(each for each in self._manifest.graphs if each.file == file)
        found = self._graph(described).run([self.engine.value(each) for each in values])
        return [self.engine.array(each) for each in found]

    def close(self) -> None:
        """Let go of all graphs and the engine."""
        self._closed = True
        self._graphs.clear()
        self.engine.close()

    def run_graph(self, described: Described, live: Live, stop: Stop | None = None) -> Live:
        """What one graph gives, by name, from what is alive.

        Raises:
            Stopped: The stop was requested before the end.
        """
        graph = self._graph(described)
        found = graph.run([live[name] for name in described.inputs], stop)
        return dict(zip(described.outputs, found, strict=True))

    def _absent(self, described: BranchGraph, live: Live) -> dict[str, Any]:
        """NaN in place of what is computed from an absent input."""
        there = next(live[name] for name in described.inputs if name in live)
        rows = len(self.engine.array(there))
        return {
            name: self.engine.value(np.full((rows, *shape), np.nan, np.float32))
            for name, shape in zip(described.inputs, described.shapes, strict=True)
            if name not in live
        }

    def _check_open(self) -> None:
        if self._closed:
            raise BundleError(f"{self._bundle.place} was closed. Open it again to answer samples.")

    def _graph(self, described: Described) -> Graph:
        with self._loading:
            self._check_open()
            if described.file not in self._graphs:
                content = self._bundle.read(described.file)
                what = f"{described.file} of {self._bundle.place}"
                self._graphs[described.file] = self.engine.load(content, what)
            return self._graphs[described.file]
