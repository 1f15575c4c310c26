"""All places where a backbone can be cut, with sizes and costs of a cut there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from offramp.backbones.analysis import Analysis, analyse, as_tuple
from offramp.backbones.axes import MAP, Axes, Rehearsed, rehearse_graph
from offramp.backbones.leaves import find_leaves
from offramp.backbones.partition import Flow, extracted_from
from offramp.spec import FeatureShape


@dataclass(frozen=True)
class Place:
    """A tensor after which a backbone can be cut.

    Attributes:
        name: Shortest module path of the tensor, or else the name of its node.
        aliases: Other names.
        kind: Which of the two the name is.
        shape: Shape without the first axis, which is the batch at most places.
        axes: Meaning of each axis, including the first.
        ends_block: Whether a module with submodules ends here and no other tensor is alive.
        live_tensors: Number of tensors that cross a cut here.
        live_bytes: Size of these for one sample.
        flops: FLOPs up to here (2mac), for one sample.
        flops_share: The same as a share of the whole network, 0 to 1.
    """

    name: str
    aliases: tuple[str, ...]
    kind: Literal["module", "node"]
    shape: tuple[int, ...]
    axes: Axes
    ends_block: bool
    live_tensors: int
    live_bytes: int
    flops: int
    flops_share: float

    @property
    def features(self) -> FeatureShape | None:
        """The shape as a feature map; None where it is not one."""
        return FeatureShape(*self.shape) if self.axes == MAP else None


@dataclass(frozen=True)
class Listing:
    """The places of a backbone in graph order.

    Attributes:
        total_flops: FLOPs of the whole network with its top (2mac), for one sample.
        num_outputs: Size of the answer's last axis.
    """

    places: tuple[Place, ...]
    total_flops: int
    num_outputs: int


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
    seen = rehearse_graph(analysis, inputs)
    total = sum(seen.flops.values())
    found = [
        _place(node, names, analysis, reach, seen)
        for node, names in _names_by_node(analysis).items()
        if reach.runs_something(node) and not reach.splits_a_pack(node)
    ]
    found.sort(key=lambda pair: pair[0])
    shape = analysis.values[analysis.answer].shape
    num_outputs = shape[-1] if len(shape) > 1 else 1
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
    seen: Rehearsed,
) -> tuple[int, Place]:
    modules = analysis.names.modules
    name, *aliases = sorted(names, key=lambda each: (each not in modules, len(each), each))
    live = reach.live_after(node)
    spent = sum(flops for each, flops in seen.flops.items() if reach.needs(node, each))
    total = sum(seen.flops.values())
    return reach.order[node], Place(
        name=name,
        aliases=tuple(aliases),
        kind="module" if name in modules else "node",
        shape=analysis.values[node].shape[1:],
        axes=seen.axes[node],
        ends_block=len(live) == 1 and any(_holds_modules(analysis, each) for each in names),
        live_tensors=len(live),
        live_bytes=sum(analysis.values[each].num_bytes for each in live),
        flops=spent,
        flops_share=spent / total if total else 0.0,
    )


def _holds_modules(analysis: Analysis, name: str) -> bool:
    held = analysis.root.get_submodule(name) if name in analysis.names.modules else None
    return held is not None and any(True for _ in held.children())


class _Reach:
    """Ancestors and readers of every node as bit sets, for a quick look at each cut."""

    def __init__(self, flow: Flow) -> None:
        self.order = flow.order
        self._values = flow.values
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

    def splits_a_pack(self, node: fx.Node) -> bool:
        """Whether a later stage would need a whole tuple, which cannot cross a cut."""
        return any(self._values[each].kind == "pack" for each in self.live_after(node))

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
