"""Pieces: the modules that become graphs, each with the names of what it reads and gives."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from offramp.answering.inputs import NONE, Numbers
from offramp.backbones.stage import Partly, Stage
from offramp.backbones.staged import StagedBackbone
from offramp.branches.predictor import score_of
from offramp.bundle import BranchGraph, StageGraph
from offramp.bundle.manifest import OUTPUTS, SCORE
from offramp.multiexit.answers import columns
from offramp.multiexit.facts import facts_of
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.spec import FINAL, dims
from offramp.task import Task

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Piece:
    """One module that becomes a graph.

    Attributes:
        graph: The entry of the manifest.
        module: Takes one tensor for each input, and returns a tuple with one for each output.
    """

    graph: StageGraph | BranchGraph
    module: nn.Module


def pieces_of(model: MultiExit, stages: Sequence[Stage]) -> list[Piece]:
    """The pieces of a model, in the order in which they run: copies on the CPU, in fp32.

    Args:
        model: The model.
        stages: Its stages, or faster copies of them.
    """
    names, copies = Names(model.backbone), [_plain(stage) for stage in stages]
    found: list[Piece] = []
    for costs in facts_of(model).costs:
        found += _stages(model, copies, names, frozenset(costs.without))
    return found + list(_branches(model, names))


class Names:
    """Names of the tensors of a backbone: those of nodes, and for inputs those of arguments."""

    def __init__(self, backbone: StagedBackbone) -> None:
        first = _placeholders(cast(Stage, backbone.stages[0]))
        arguments = dict(zip(first, backbone.inputs.names, strict=True))
        nodes = {name for stage in backbone.stages for name in _placeholders(cast(Stage, stage))}
        nodes |= {name for taps in backbone.tap_nodes.values() for name in taps}
        taken = {*arguments.values(), OUTPUTS, SCORE}
        self._names = arguments | {
            node: _free(node, taken) for node in sorted(nodes - arguments.keys())
        }

    def of(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Names of the tensors that these nodes give."""
        return tuple(self._names[node] for node in nodes)


def _free(node: str, taken: set[str]) -> str:
    while node in taken:
        node += "_"
    taken.add(node)
    return node


def _placeholders(stage: Stage) -> list[str]:
    return [str(node.target) for node in stage.body.graph.nodes if node.op == "placeholder"]


def _stages(
    model: MultiExit, stages: Sequence[Stage], names: Names, absent: Numbers
) -> Iterator[Piece]:
    """The stages where inputs are absent, as far as an exit answers."""
    backbone = model.backbone
    ends = (*backbone.cuts, FINAL)
    last = max(ends.index(name) for name in model.exits_without(absent))
    live: Partly = tuple(
        None
        if number in absent
        else torch.zeros(1, *shape, dtype=torch.float32 if dtype.is_floating_point else dtype)
        for number, (shape, dtype) in enumerate(
            zip(backbone.input_shapes, backbone.input_dtypes, strict=True)
        )
    )
    for number, (end, stage) in enumerate(zip(ends[: last + 1], stages, strict=False)):
        reads = names.of(_placeholders(stage))
        present = [each is not None for each in live]
        with torch.no_grad():
            live, taps = stage(live)
        values = (*live, *taps)
        if end == FINAL:
            gives: tuple[str, ...] = (OUTPUTS,)
            values = (columns(cast(Tensor, live[0]), model.task),)
        else:
            after = _placeholders(stages[number + 1])
            gives = names.of([*after, *backbone.tap_nodes[end]])
        inputs = tuple(name for name, there in zip(reads, present, strict=True) if there)
        kept = {
            name: (place, value)
            for place, (name, value) in enumerate(zip(gives, values, strict=True))
            if name not in reads and value is not None
        }
        if kept:
            where = "" if absent == NONE else f"-without-{'-'.join(map(str, sorted(absent)))}"
            yield Piece(
                StageGraph(
                    file=f"stages/{number}{where}.onnx",
                    stage=number,
                    shapes=tuple(tuple(value.shape[1:]) for _, value in kept.values()),
                    dtypes=tuple(_dtype(value) for _, value in kept.values()),
                    without=tuple(sorted(absent)),
                    inputs=inputs,
                    outputs=tuple(kept),
                ),
                _StagePiece(
                    stage,
                    present,
                    [place for place, _ in kept.values()],
                    model.task,
                    end == FINAL,
                ),
            )


def _dtype(value: Tensor) -> str:
    """Type of a tensor's numbers in a graph, whose weights are in fp32."""
    return "float32" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")


def _branches(model: MultiExit, names: Names) -> Iterator[Piece]:
    for number, (cut, trial) in enumerate(model.chosen.items()):
        yield Piece(
            BranchGraph(
                file=f"branches/{number}.onnx",
                exit=cut,
                inputs=names.of(model.backbone.tap_nodes[cut]),
                outputs=(OUTPUTS, SCORE) if trial.predicts_error else (OUTPUTS,),
                shapes=tuple(dims(shape) for shape in model.backbone.tap_shapes[cut]),
            ),
            _BranchPiece(trial, model.task),
        )


class _StagePiece(nn.Module):
    """A stage that takes the inputs that are there, and gives only what it computes."""

    def __init__(
        self, stage: Stage, present: list[bool], kept: list[int], task: Task, last: bool
    ) -> None:
        super().__init__()
        self.stage = stage
        self.present, self.kept, self.task, self.last = present, kept, task, last

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run it."""
        values = iter(given)
        live, taps = self.stage(tuple(next(values) if there else None for there in self.present))
        if self.last:
            return (columns(live[0], self.task),)
        every = (*live, *taps)
        return tuple(every[place] for place in self.kept)


class _BranchPiece(nn.Module):
    """A branch that gives its answers, and the score of its error predictor if it has one."""

    def __init__(self, trial: Trial, task: Task) -> None:
        super().__init__()
        self.branch = _plain(trial.branch)
        self.trial, self.task = trial, task

    def forward(self, *taps: Tensor) -> tuple[Tensor, ...]:
        """Answer."""
        answers = self.branch(*taps)
        if not self.trial.predicts_error:
            return (answers,)
        return answers[:, :-1], score_of(answers[:, -1], self.task)


def _plain(module: Module) -> Module:
    """A copy in fp32 on the CPU, in evaluation mode."""
    return copy.deepcopy(module).cpu().float().eval()
