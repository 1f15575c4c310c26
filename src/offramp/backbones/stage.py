"""One stage of a cut backbone as a module."""

from collections.abc import Container
from keyword import iskeyword
from operator import attrgetter
from typing import Any, Self, cast

import torch
from torch import Tensor, fx, nn

from offramp.backbones.analysis import Analysis
from offramp.backbones.partition import Partition

Live = tuple[Tensor, ...]
"""The tensors alive between two stages; before the first one, the inputs."""
Partly = tuple[Tensor | None, ...]
"""The same where an input is absent: None in place of what is computed from it."""


class Stage(nn.Module):
    """The part of a backbone between two cuts, permanently frozen.

    A module around it can still set `requires_grad` of its parameters; running the stage clears it
    before a gradient can reach them.

    Shape:
        live, a tuple of tensors -> (live, taps), both tuples: what later stages need, and what
        branches read after this stage. The last stage gives ((output,), ()).
    """

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__()
        self.body = body

    def forward(self, live: Partly) -> tuple[Partly, Partly]:
        """Run the stage on the live tensors of the stage before.

        Where one is None, what needs it is not computed and is None too.
        """
        if torch.is_grad_enabled():
            self.requires_grad_(False)
        if any(tensor is None for tensor in live):
            return cast(tuple[Partly, Partly], _Present(self.body).run(*live))
        live, taps = self.body(*live)
        return live, taps

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever `mode` says."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Stay without gradients whatever `requires_grad` says."""
        return super().requires_grad_(False)


class _Present(fx.Interpreter):
    """Runs a graph but for what depends on an argument that is None, which is None too."""

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "output" and any(self.env[each] is None for each in n.all_input_nodes):
            return None
        return super().run_node(n)


def make_stage(analysis: Analysis, parts: Partition, stage: int) -> Stage:
    """Build stage number `stage` of a divided graph.

    Its modules lie side by side in it, not nested: five look-ups for `blocks.2.1.conv_dw` instead
    of one would cost a small network 3 % of its time.
    """
    graph = fx.Graph()
    inner: dict[fx.Node, fx.Node] = {
        node: graph.placeholder(node.name) for node in parts.live[stage]
    }
    flat: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for node in parts.bodies[stage]:
        inner[node] = graph.node_copy(node, inner.__getitem__)
        if node.op in ("call_module", "get_attr"):
            path = str(node.target)
            name = paths.setdefault(path, _flat_name(path, flat))
            flat[name] = attrgetter(path)(analysis.root)
            inner[node].target = name
    if stage + 1 < len(parts.bodies):
        live = tuple(inner[node] for node in parts.live[stage + 1])
        taps = tuple(inner[node] for node in parts.taps[stage])
    else:
        live, taps = (inner[analysis.answer],), ()
    graph.output((live, taps))
    return Stage(fx.GraphModule(flat, graph, class_name="StageBody"))


def _flat_name(path: str, taken: Container[str]) -> str:
    name = path.replace(".", "_")
    if not name.isidentifier():
        name = "".join(letter if letter.isalnum() else "_" for letter in f"_{name}")
    while name in taken or hasattr(fx.GraphModule, name) or iskeyword(name):
        name += "_"
    return name
