"""Chain: the pieces of a model run one after another, each on what those before it gave."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.answering import ModelFacts
from offramp.answering.inputs import Numbers
from offramp.bundle import BranchGraph
from offramp.exporting.pieces import Piece

Array = NDArray[Any]
Compute = Callable[[Piece, Sequence[Array]], Sequence[Array]]
"""Gives a piece's outputs from its inputs."""


def run_chain(
    facts: ModelFacts,
    pieces: Sequence[Piece],
    inputs: Sequence[Array],
    absent: Numbers,
    compute: Compute,
) -> Iterator[tuple[Piece, list[Array], list[Array]]]:
    """Run the pieces for samples that lack some inputs; yields each with its inputs and outputs.

    Args:
        facts: Facts of the model.
        pieces: Its pieces; those for other absent inputs are left out, as are branches that cannot
            answer.
        inputs: The network's inputs, (B, ...) each.
        absent: Inputs to leave out.
        compute: Runs a piece.
    """
    values = {
        each.name: value
        for number, (each, value) in enumerate(zip(facts.inputs, inputs, strict=True))
        if number not in absent
    }
    answering = facts.exits_without(absent)
    for piece in pieces:
        graph = piece.graph
        if isinstance(graph, BranchGraph):
            if graph.exit in answering:
                given = _filled(graph, values)
                yield piece, given, list(compute(piece, given))
        elif frozenset(graph.without) == absent:
            given = [values[name] for name in graph.inputs]
            found = list(compute(piece, given))
            yield piece, given, found
            values |= zip(graph.outputs, found, strict=True)


def _filled(graph: BranchGraph, values: dict[str, Array]) -> list[Array]:
    """The branch's inputs, with NaN in place of what is computed from an absent input."""
    rows = len(next(iter(values.values())))
    return [
        values[name] if name in values else np.full((rows, *shape), np.nan, np.float32)
        for name, shape in zip(graph.inputs, graph.shapes, strict=True)
    ]


@torch.inference_mode()
def with_torch(piece: Piece, values: Sequence[Array]) -> list[Array]:
    """What a piece's module gives."""
    return [each.numpy() for each in piece.module(*map(torch.from_numpy, values))]
