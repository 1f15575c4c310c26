"""Partition: the nodes of each stage, and the tensors between stages."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import fx
from torch.fx.node import Argument

from offramp.backbones.aliasing import Hazards
from offramp.backbones.sized import check_size
from offramp.backbones.values import Value


@dataclass(frozen=True, eq=False)
class Partition:
    """A graph divided into stages.

    Attributes:
        stage_of: Stage number of every node that is computed; inputs have -1. Sizes and weights
            are absent: each stage reads them again from what it holds.
        bodies: Nodes that each stage runs, in graph order, its own copies of sizes included.
        live: Tensors that enter each stage, in graph order; those of stage 0 are the inputs.
        taps: Tensors that branches read after each stage but the last.
    """

    stage_of: Mapping[fx.Node, int]
    bodies: tuple[tuple[fx.Node, ...], ...]
    live: tuple[tuple[fx.Node, ...], ...]
    taps: tuple[tuple[fx.Node, ...], ...]


class Flow:
    """Dependencies in a graph: its edges, and the hidden ones of in-place operations."""

    def __init__(self, graph: fx.Graph, values: Mapping[fx.Node, Value], hazards: Hazards) -> None:
        self.values = values
        self.nodes = tuple(graph.nodes)
        self.order = {node: index for index, node in enumerate(self.nodes)}
        self.inputs = tuple(node for node in self.nodes if node.op == "placeholder")
        self.output = self.nodes[-1]
        self._after = hazards.after

    def needs(self, node: fx.Node) -> set[fx.Node]:
        """Nodes that `node` depends on directly."""
        return {*node.all_input_nodes, *self._after.get(node, ())}

    def ancestors(self, ends: Iterable[fx.Node]) -> set[fx.Node]:
        """`ends` and all nodes that they depend on, directly or indirectly."""
        found: set[fx.Node] = set()
        waiting = list(ends)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend(self.needs(node))
        return found

    def is_computed(self, node: fx.Node) -> bool:
        """Whether the node is assigned to a stage."""
        if node.op in ("placeholder", "output"):
            return False
        return self.values[node].kind in ("tensor", "pack") or not node.users

    def read_by(self, node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
        """Tensors (and packs) that `node` reads, and the sizes and weights on the way to them."""
        tensors: list[fx.Node] = []
        plain: list[fx.Node] = []
        waiting = list(node.all_input_nodes)
        while waiting:
            source = waiting.pop()
            if source.op == "placeholder" or self.is_computed(source):
                tensors.append(source)
            elif source not in plain:
                plain.append(source)
                waiting.extend(source.all_input_nodes)
        return tensors, plain


def divide_graph(
    flow: Flow, cuts: Sequence[Iterable[fx.Node]], taps: Sequence[tuple[fx.Node, ...]]
) -> Partition:
    """Divide a graph: a node runs in the first stage whose cut needs it, else in the last.

    `cuts` holds for each cut the nodes that its stage has to reach.

    Why the stages then compose to the model: what a node needs runs in its own stage or an earlier
    one (`_stages` takes whole sets of ancestors, so a need is never later than its reader), and a
    tensor is live from the stage that made it up to the last one that reads it. Within a stage the
    nodes keep the graph's order, which is the order in which the model ran them.
    """
    stage_of = _stages(flow, cuts)
    num_stages = len(cuts) + 1
    bodies: list[set[fx.Node]] = [set() for _ in range(num_stages)]
    needed: list[set[fx.Node]] = [set() for _ in range(num_stages)]
    for node, stage in stage_of.items():
        if stage >= 0:
            tensors, plain = flow.read_by(node)
            bodies[stage].update([node, *plain])
            needed[stage].update(tensors)
    tensors, _ = flow.read_by(flow.output)
    needed[-1].update(tensors)
    for stage, read in enumerate(taps):
        needed[stage].update(read)
    return Partition(
        stage_of,
        tuple(tuple(sorted(body, key=flow.order.__getitem__)) for body in bodies),
        _live(flow, stage_of, needed),
        tuple(taps),
    )


def _stages(flow: Flow, cuts: Sequence[Iterable[fx.Node]]) -> dict[fx.Node, int]:
    # Holds after each of the three loops: no node is in an earlier stage than what it needs. The
    # first takes closed sets. The second moves an item of a tuple back, to the tuple, on which
    # alone it depends. The third places what has no reader behind all that it reads.
    stage_of = dict.fromkeys(flow.inputs, -1)
    last = len(cuts)
    wanted = [*enumerate(cuts), (last, [flow.output])]
    for stage, ends in wanted:
        for node in flow.ancestors(ends):
            if flow.is_computed(node):
                stage_of.setdefault(node, stage)
    for node in flow.nodes:  # what a tuple holds is taken out of it in the stage that made it
        source = extracted_from(node)
        if node in stage_of and source is not None and flow.values[source].kind == "pack":
            stage_of[node] = stage_of[source]
    for node in flow.nodes:  # checks that nobody reads: as soon as their tensors are there
        if node not in stage_of and flow.is_computed(node) and _has_effect(flow, node):
            tensors, _ = flow.read_by(node)
            stage_of[node] = max([0, *(stage_of.get(tensor, last) for tensor in tensors)])
    return stage_of


def extracted_from(node: fx.Node) -> fx.Node | None:
    """The tuple or dict that `node` takes one item of."""
    if node.op == "call_function" and node.target in (operator.getitem, getattr):
        source, key = node.args[:2]
        if isinstance(source, fx.Node) and isinstance(key, int | str):
            return source
    return None


def unpack(graph: fx.Graph, values: Mapping[fx.Node, Value]) -> bool:
    """Replace whole tuples by their items for every reader, so that single tensors cross cuts.

    Returns whether anything was changed.
    """
    changed = False
    for node in list(graph.nodes):
        length = values[node].length if node in values else None
        readers = [user for user in node.users if extracted_from(user) is None]
        if not length or not readers:
            continue
        with graph.inserting_after(node):
            items = [graph.call_function(operator.getitem, (node, i)) for i in range(length)]
        for reader in readers:
            reader.args = fx.node.map_arg(reader.args, partial(_replaced, node=node, items=items))
        changed = True
    return changed


def _replaced(argument: fx.Node, *, node: fx.Node, items: list[fx.Node]) -> Argument:
    return items if argument is node else argument


def _has_effect(flow: Flow, node: fx.Node) -> bool:
    is_check = node.op == "call_function" and (node.is_impure() or node.target is check_size)
    return is_check or bool(flow.values[node].written)


def _live(
    flow: Flow, stage_of: Mapping[fx.Node, int], needed: Sequence[set[fx.Node]]
) -> tuple[tuple[fx.Node, ...], ...]:
    # From the end: what enters a stage is what it or a later one reads and an earlier one made.
    # Sizes and weights are never here, since read_by looks through them to the tensors behind.
    live: list[tuple[fx.Node, ...]] = []
    later: set[fx.Node] = set()
    for stage in range(len(needed) - 1, 0, -1):
        later |= needed[stage]
        alive = [node for node in later if stage_of[node] < stage]
        live.append(tuple(sorted(alive, key=flow.order.__getitem__)))
    return (flow.inputs, *reversed(live))
