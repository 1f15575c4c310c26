"""All places where a backbone can be cut, with what a single cut there carries and costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from offramp.backbones.analysis import Analysis, analyse, as_tuple
from offramp.backbones.leaves import find_leaves
from offramp.backbones.partition import Flow, extracted_from
from offramp.backbones.values import Interpreter
from offramp.compute import FlopCounter
from offramp.spec import FeatureShape


@dataclass(frozen=True)
class Place:
    """A tensor after which a backbone can be cut.

    Attributes:
        name: The shortest module path that means it, else its node's name.
        aliases: Its other names.
        kind: Which of the two the name is.
        shape: Without the batch axis.
        live_tensors: How many tensors one cut there carries.
        live_bytes: Their size for one sample.
        flops: What must run for it (2mac), for one sample.
        flops_share: The same as a share of the whole network, 0 to 1.
    """

    name: str
    aliases: tuple[str, ...]
    kind: Literal["module", "node"]
    shape: tuple[int, ...]
    live_tensors: int
    live_bytes: int
    flops: int
    flops_share: float

    @property
    def features(self) -> FeatureShape | None:
        """The shape as a feature map; None where it is none."""
        return FeatureShape(*self.shape) if len(self.shape) == 3 else None


@dataclass(frozen=True)
class Listing:
    """The places of a backbone in graph order.

    Attributes:
        total_flops: Of the whole network with its top, one sample, 2mac.
        num_outputs: Size of the answer's last axis.
    """

    places: tuple[Place, ...]
    total_flops: int
    num_outputs: int


def places(model: nn.Module, sample: Tensor | tuple[Tensor, ...]) -> list[Place]:
    """List the places of `model`, in graph order; see `list_places`."""
    return list(list_places(model, sample).places)


def list_places(
    model: nn.Module,
    sample: Tensor | tuple[Tensor, ...],
    *,
    leaves: Sequence[type[nn.Module] | str] = (),
) -> Listing:
    """List the places of `model` for the first sample of `sample`; arguments as in `cut`.

    Raises:
        CutError: The model cannot be traced or run.
    """
    inputs = tuple(tensor[:1] for tensor in as_tuple(sample))
    analysis = analyse(model, inputs, find_leaves(model, leaves))
    reach = _Reach(analysis.flow)
    flops = _node_flops(analysis, inputs)
    total = sum(flops.values())
    found = [
        _place(node, names, analysis, reach, flops)
        for node, names in _names_by_node(analysis).items()
        if reach.runs_something(node)
    ]
    found.sort(key=lambda pair: pair[0])
    num_outputs = analysis.values[analysis.answer].shape[-1]
    return Listing(tuple(place for _, place in found), total, num_outputs)


def _names_by_node(analysis: Analysis) -> dict[fx.Node, list[str]]:
    """Names of every tensor but the answer, which no cut may come after."""
    answer = analysis.values[analysis.answer].same_as
    by_node: dict[fx.Node, list[str]] = {}
    for name, node in analysis.names.nodes.items():
        first = analysis.values[node].same_as
        if first is not answer:
            by_node.setdefault(first, []).append(name)
    return by_node


def _place(
    node: fx.Node,
    names: Sequence[str],
    analysis: Analysis,
    reach: "_Reach",
    flops: Mapping[fx.Node, int],
) -> tuple[int, Place]:
    modules = analysis.names.modules
    name, *aliases = sorted(names, key=lambda each: (each not in modules, len(each), each))
    live = reach.live_after(node)
    spent = sum(flops[each] for each in flops if reach.needs(node, each))
    total = sum(flops.values())
    return reach.order[node], Place(
        name=name,
        aliases=tuple(aliases),
        kind="module" if name in modules else "node",
        shape=analysis.values[node].shape[1:],
        live_tensors=len(live),
        live_bytes=sum(analysis.values[each].num_bytes for each in live),
        flops=spent,
        flops_share=spent / total if total else 0.0,
    )


class _Reach:
    """Ancestors and readers of every node as bit sets, so that each cut is cheap to look at."""

    def __init__(self, flow: Flow) -> None:
        self.order = flow.order
        self._inputs = sum(1 << flow.order[node] for node in flow.inputs)
        self._ancestors: dict[fx.Node, int] = {}
        self._readers: dict[fx.Node, int] = {}
        wanted = flow.ancestors([flow.output])
        for node in flow.nodes:
            self._ancestors[node] = self._ancestors_of(node, flow)
            if node in wanted and (node is flow.output or flow.is_computed(node)):
                for tensor in flow.read_by(node)[0]:
                    bit = 1 << flow.order[node]
                    self._readers[tensor] = self._readers.get(tensor, 0) | bit
        self._computed = sum(1 << flow.order[n] for n in flow.nodes if flow.is_computed(n))

    def _ancestors_of(self, node: fx.Node, flow: Flow) -> int:
        """The node, what it needs, and every item of the tuples among them."""
        found = 1 << flow.order[node]
        for needed in flow.needs(node):
            found |= self._ancestors[needed]
        if node in flow.values and flow.values[node].kind == "pack":
            items = [user for user in node.users if extracted_from(user) is node]
            found |= sum(1 << flow.order[item] for item in items)
        return found

    def runs_something(self, node: fx.Node) -> bool:
        return bool(self._ancestors[node] & self._computed)

    def needs(self, node: fx.Node, other: fx.Node) -> bool:
        """Whether `other` must have run for `node`."""
        return bool(self._ancestors[node] >> self.order[other] & 1)

    def live_after(self, node: fx.Node) -> list[fx.Node]:
        """Tensors that a cut after `node` carries."""
        done = self._ancestors[node] | self._inputs
        return [
            tensor
            for tensor, readers in self._readers.items()
            if done >> self.order[tensor] & 1 and readers & ~done
        ]


def _node_flops(analysis: Analysis, inputs: tuple[Tensor, ...]) -> dict[fx.Node, int]:
    """FLOPs of each node that has any."""
    counting = _Counting(analysis.root, analysis.graph)
    with torch.no_grad():
        counting.run(*(tensor.clone() for tensor in inputs))
    return counting.flops


class _Counting(Interpreter):
    """Interpreter that counts each node on its own."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.flops: dict[fx.Node, int] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with FlopCounter() as self._counter:
            return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.total
        result = super().run_node(n)
        if self._counter.total > before:
            self.flops[n] = self._counter.total - before
        return result
