"""Making the graphs of a model: written, loaded into engines, and compared before they count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from offramp.answering import ModelFacts
from offramp.backbones.folding import folded
from offramp.backbones.stage import Stage
from offramp.bundle import BranchGraph, Bundle, BundleManifest, Parity, StageGraph
from offramp.data import Samples
from offramp.errors import ExportError
from offramp.exporting.chain import Array, run_chain, with_torch
from offramp.exporting.graph import onnx_graph
from offramp.exporting.parity import BATCHES, TOLERANCE, agree, compared
from offramp.exporting.pieces import Piece, pieces_of
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.multiexit.routing import rows_are_apart
from offramp.progress import Progress
from offramp.runtime.engines import open_engine
from offramp.runtime.measuring import measured_times
from offramp.runtime.parts import Parts

_SEED = 0


@dataclass(frozen=True, eq=False)
class Inputs:
    """What graphs and model are compared on.

    Attributes:
        arrays: One for each input of the network, each with as many rows as the largest batch.
        samples: How many different samples these are.
        real: Whether they are real samples, not random values.
    """

    arrays: tuple[Array, ...]
    samples: int
    real: bool

    @classmethod
    def of(cls, facts: ModelFacts, samples: Samples | None) -> "Inputs":
        """The first samples that have all inputs, repeated if they are few; or random values."""
        rows = max(BATCHES)
        if samples is None:
            draw = np.random.default_rng(_SEED)
            arrays = tuple(_random(draw, rows, each.shape, each.dtype) for each in facts.inputs)
            return cls(arrays, rows, real=False)
        whole = samples.present is None or samples.present.all(axis=1)
        places = np.flatnonzero(np.broadcast_to(whole, len(samples)))[:rows]
        if len(places) == 0:
            raise ExportError(
                "every one of the samples lacks an input, and the graphs are compared with the "
                "model on samples that have all. Give some that do."
            )
        batch = samples.read(np.resize(places, rows))
        arrays = tuple(
            value.numpy().astype(each.dtype, copy=False)
            for value, each in zip(batch.inputs, facts.inputs, strict=True)
        )
        return cls(arrays, len(places), real=True)


def in_fp32(facts: ModelFacts) -> ModelFacts:
    """The facts of a model whose graphs read and give fp32, whatever its own precision."""
    inputs = tuple(
        each.model_copy(update={"dtype": "float32"}) if "float" in each.dtype else each
        for each in facts.inputs
    )
    return facts.model_copy(update={"inputs": inputs})


def _random(draw: np.random.Generator, rows: int, shape: Sequence[int], dtype: str) -> Array:
    if "float" not in dtype:
        return np.zeros((rows, *shape), dtype)
    return draw.standard_normal((rows, *shape)).astype(np.float32)


def made_bundle(
    model: MultiExit,
    inputs: Inputs,
    engines: Sequence[str],
    progress: Progress,
    clock: Callable[[], float],
) -> Bundle:
    """The bundle of a model in memory, without policies, once its graphs agree with the model.

    Batch norms are folded into convolutions if the folded model agrees with the model.

    Raises:
        ExportError: A graph cannot be made, or differs from the model.
        ExtraError: onnx or an engine is not installed.
    """
    facts = in_fp32(facts_of(model))
    stages = [stage for stage in model.backbone.stages if isinstance(stage, Stage)]
    plain = pieces_of(model, stages)
    quick = pieces_of(model, [folded(stage) for stage in stages])
    is_folded = agree(facts, plain, quick, inputs.arrays)
    if not is_folded:
        quick = plain
    graphs = _graphs(facts, quick, inputs, progress)
    entries = [piece.graph for piece in quick]
    manifest = BundleManifest(
        facts=facts,
        stages=tuple(each for each in entries if isinstance(each, StageGraph)),
        branches=tuple(each for each in entries if isinstance(each, BranchGraph)),
        model=model.digest(),
        apart=rows_are_apart(model),
    )
    bundle = Bundle(manifest, (), graphs.__getitem__)
    parity, times = [], []
    for name in engines:
        parts = Parts(bundle, open_engine(name))
        found = compared(facts, plain, inputs.arrays, parts)
        times.append(measured_times(bundle, parts, progress=progress, clock=clock))
        parity.append(
            Parity(
                tolerance=TOLERANCE,
                difference=found.difference,
                differences=found.differences,
                samples=inputs.samples,
                inputs="real" if inputs.real else "random",
                engine=parts.engine.name,
                folded=is_folded,
            )
        )
        parts.close()
    whole = manifest.model_copy(update={"parity": tuple(parity), "times": tuple(times)})
    return replace(bundle, manifest=whole)


def _graphs(
    facts: ModelFacts, pieces: Sequence[Piece], inputs: Inputs, progress: Progress
) -> Mapping[str, bytes]:
    """The content of each file; each graph is made on values as it will get them."""
    found: dict[str, bytes] = {}
    given = [each[:3] for each in inputs.arrays]
    for costs in facts.costs:
        for piece, values, _ in run_chain(
            facts, pieces, given, frozenset(costs.without), with_torch
        ):
            if piece.graph.file not in found:
                found[piece.graph.file] = onnx_graph(
                    piece.module,
                    [torch.from_numpy(each) for each in values],
                    piece.graph.inputs,
                    piece.graph.outputs,
                )
                progress("ONNX graphs", len(found), len(pieces))
    return found
