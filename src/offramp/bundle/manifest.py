"""The manifest of a bundle: its graphs, what they were checked against, and measured times."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from offramp.answering import ModelFacts
from offramp.spec import FINAL, Spec

OUTPUTS = "outputs"
"""Name of the answers (B, K) that a branch gives, and that the last stage gives."""
SCORE = "score"
"""Name of the scores (B,) of a branch that predicts its error."""
BATCH = "batch"
"""Name of the first axis of every input and output of every graph."""


class Graph(Spec):
    """One ONNX graph.

    Attributes:
        file: Name in the bundle.
        inputs: Names of the tensors that it reads; of the network's inputs, of earlier stages.
        outputs: Names of the tensors that it gives.
    """

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class StageGraph(Graph):
    """The part of the network between two cuts.

    Attributes:
        stage: Its number, from 0.
        shapes: Shape of each output, without the batch axis.
        dtypes: Type of each output's numbers, as numpy names it.
        without: Numbers of the network's inputs that are absent where this graph is used.
    """

    stage: NonNegativeInt
    shapes: tuple[tuple[PositiveInt, ...], ...]
    dtypes: tuple[str, ...]
    without: tuple[NonNegativeInt, ...] = ()


class BranchGraph(Graph):
    """The branch of an early exit.

    Attributes:
        exit: Name of the exit.
        shapes: Shape of each input, without the batch axis. An input that is computed from an
            absent input of the network is filled with NaN.
    """

    exit: str
    shapes: tuple[tuple[PositiveInt, ...], ...]


class Parity(Spec):
    """How far the graphs are from the model that they were exported from.

    Attributes:
        tolerance: Greatest difference that is allowed, as a share of the greatest absolute value.
        difference: Greatest difference that was seen, as such a share.
        differences: The same for the answers of each exit, by name.
        samples: Number of samples that were compared.
        inputs: What they were: real samples, or random values in the inputs' shapes.
        engine: What ran the graphs.
        folded: Whether batch norms are folded into convolutions.
    """

    tolerance: NonNegativeFloat
    difference: NonNegativeFloat
    differences: Mapping[str, NonNegativeFloat]
    samples: PositiveInt
    inputs: Literal["real", "random"]
    engine: str
    folded: bool = False


class PartTimes(Spec):
    """Milliseconds of one graph.

    Attributes:
        file: The graph.
        batch: Number of samples.
        median_ms: Over `repeats` runs.
        high_ms: Their 90th percentile.
        repeats: Number of runs.
    """

    file: str
    batch: PositiveInt
    median_ms: NonNegativeFloat
    high_ms: NonNegativeFloat
    repeats: PositiveInt


class Times(Spec):
    """Times that were measured on one machine.

    Attributes:
        engine: Name and version of the engine.
        precision: What it computes in.
        threads: CPU threads.
        processor: Name of the processor.
        cores: Cores of the machine.
        parts: One entry for each graph and size of batch.
        row_ms: After each stage but the last, what copying one sample of what is alive takes;
            empty if that was not measured.
    """

    engine: str
    precision: str
    threads: PositiveInt
    processor: str
    cores: PositiveInt
    parts: tuple[PartTimes, ...]
    row_ms: tuple[NonNegativeFloat, ...] = ()


class BundleManifest(Spec):
    """What a bundle says of itself.

    Attributes:
        facts: What the model reads, where it answers, and what that costs.
        stages: Graphs of the stages, first those for samples with all inputs.
        branches: Graphs of the early exits.
        model: SHA-256 of the weights and settings of backbone and branches.
        precision: Of the weights.
        apart: Whether each sample is one row of every tensor at a cut, so that samples of a batch
            can be separated.
        parity: How far the graphs are from the model, in each engine that was tried.
        times: Measured times; empty if none were measured.
        about: Where it came from, for people: versions, machine, run, data, measured accuracy.
    """

    facts: ModelFacts
    stages: tuple[StageGraph, ...]
    branches: tuple[BranchGraph, ...]
    model: str
    precision: str = "fp32"
    apart: bool = True
    parity: tuple[Parity, ...] = ()
    times: tuple[Times, ...] = ()
    about: Mapping[str, Any] = {}

    def used_after(self, stage: int) -> frozenset[str]:
        """Names of the tensors that are read after a stage: by its branch and all that follows."""
        ends = (*self.facts.cuts, FINAL)
        following: list[Graph] = [each for each in self.stages if each.stage > stage]
        following += [each for each in self.branches if each.exit in ends[stage:]]
        names = {name for each in following for name in each.inputs}
        return frozenset(names | {OUTPUTS} if stage == len(ends) - 1 else names)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """All graphs."""
        return (*self.stages, *self.branches)
