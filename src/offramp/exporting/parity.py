"""Parity: how far the graphs are from the model, on samples of several sizes of batch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offramp.answering import ModelFacts
from offramp.bundle import BranchGraph, StageGraph
from offramp.bundle.manifest import OUTPUTS
from offramp.errors import ExportError
from offramp.exporting.chain import Array, run_chain, with_torch
from offramp.exporting.pieces import Piece
from offramp.runtime.parts import Parts
from offramp.spec import FINAL

TOLERANCE = 1e-3
"""Greatest difference of a graph from the model, as a share of its greatest absolute output."""
BATCHES = (1, 3, 32)
"""Sizes of the batches on which the graphs are compared with the model."""
_MUCH = 2**29  # bytes of what a stage gives


@dataclass(frozen=True)
class Found:
    """What a comparison has found.

    Attributes:
        difference: The greatest, as a share of the greatest absolute value of that tensor.
        differences: The greatest of each exit's answers.
    """

    difference: float
    differences: Mapping[str, float]


def compared(
    facts: ModelFacts, pieces: Sequence[Piece], inputs: Sequence[Array], parts: Parts
) -> Found:
    """Run graphs and modules side by side, and refuse graphs that differ by more than TOLERANCE.

    Args:
        facts: Facts of the model.
        pieces: The modules, in single precision on the CPU, in evaluation mode.
        inputs: The network's inputs, (B, ...) each, with as many rows as the largest batch.
        parts: The graphs in an engine.

    Raises:
        ExportError: A graph differs too much, or another class wins; it names the graph.
    """
    worst: dict[str, float] = {}
    for batch in _batches(pieces):
        given = [each[:batch] for each in inputs]
        for costs in facts.costs:
            absent = frozenset(costs.without)
            ours = run_chain(
                facts, pieces, given, absent, lambda piece, v: parts.compute(piece.graph.file, v)
            )
            theirs = run_chain(facts, pieces, given, absent, with_torch)
            for (piece, _, found), (_, _, wanted) in zip(ours, theirs, strict=True):
                for name, one, other in zip(piece.graph.outputs, found, wanted, strict=True):
                    share = _share(one, other)
                    _check(f"{piece.graph.file} with a batch of {batch}", name, share, one, other)
                    key = _key(piece, name)
                    worst[key] = max(share, worst.get(key, 0.0))
    return Found(max(worst.values()), {name: worst[name] for name in facts.names})


def agree(
    facts: ModelFacts, pieces: Sequence[Piece], others: Sequence[Piece], inputs: Sequence[Array]
) -> bool:
    """Whether other modules of the same pieces differ by less than half of TOLERANCE.

    Arguments are those of `compared`; a few of the samples are enough.
    """
    given = [each[:3] for each in inputs]
    return all(
        2 * _share(one, other) <= TOLERANCE
        for costs in facts.costs
        for (_, _, found), (_, _, wanted) in zip(
            *(
                run_chain(facts, each, given, frozenset(costs.without), with_torch)
                for each in (others, pieces)
            ),
            strict=True,
        )
        for one, other in zip(found, wanted, strict=True)
    )


def _batches(pieces: Sequence[Piece]) -> Iterator[int]:
    """The sizes of batches to compare on: not the largest if its tensors would fill the memory."""
    graphs = [piece.graph for piece in pieces if isinstance(piece.graph, StageGraph)]
    most = max(sum(4 * math.prod(shape) for shape in graph.shapes) for graph in graphs)
    yield from (batch for batch in BATCHES if batch <= 3 or batch * most <= _MUCH)


def _key(piece: Piece, name: str) -> str:
    """The exit whose answers these are, or the tensor."""
    if name != OUTPUTS:
        return f"{piece.graph.file} {name}"
    return piece.graph.exit if isinstance(piece.graph, BranchGraph) else FINAL


def _share(ours: Array, theirs: Array) -> float:
    """Greatest difference as a share of the greatest absolute value; infinite where one is NaN."""
    difference = float(np.abs(ours.astype(np.float64) - theirs).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / (float(np.abs(theirs).max()) or 1.0)


def _check(where: str, name: str, share: float, ours: Array, theirs: Array) -> None:
    remedy = "so no bundle was written. Leave out the cut or branch concerned, and report this."
    if share > TOLERANCE:
        raise ExportError(
            f"in {where}, {name!r} differs from the model's by {share:.2g} of its greatest "
            f"absolute value, and only {TOLERANCE:g} is allowed, {remedy}"
        )
    if name == OUTPUTS and theirs.shape[-1] > 1:
        second, first = np.sort(theirs, axis=-1)[:, -2:].T
        clear = first - second > TOLERANCE * np.abs(theirs).max()
        if (ours.argmax(-1) != theirs.argmax(-1))[clear].any():
            raise ExportError(f"{where} answers with another class than the model, {remedy}")
