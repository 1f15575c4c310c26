"""Cutting a backbone into frozen stages that compose to exactly the whole."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, fx, nn

from offramp.backbones.aliasing import make_out_of_place
from offramp.backbones.analysis import Analysis, analyse, as_tuple
from offramp.backbones.partition import Flow, Partition, partition
from offramp.backbones.stage import Live, make_stage
from offramp.compute import count_flops
from offramp.cost import Convention
from offramp.errors import CutError
from offramp.spec import FeatureShape, TapShape


@dataclass(frozen=True)
class Cut:
    """Where a backbone is cut and what branches read there.

    Attributes:
        name: What plans, tables and files call it.
        after: Places that the stage before the cut has to reach; the taps where left empty.
        taps: Places whose tensors branches read; the places of `after` where left empty.
    """

    name: str
    after: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(isinstance(given, str) for given in (self.after, self.taps)):
            raise CutError(f"Cut {self.name!r}: after and taps are tuples of places, not a string.")
        object.__setattr__(self, "after", tuple(self.after))
        object.__setattr__(self, "taps", tuple(self.taps))
        if not self.after and not self.taps:
            raise CutError(
                f"Cut {self.name!r} names no place. Give after=(place, ...), taps=(place, ...) "
                "or both."
            )

    @property
    def places(self) -> tuple[str, ...]:
        """All places that the stage before the cut computes."""
        return tuple(dict.fromkeys((*self.after, *self.taps)))


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a staged backbone remembers that is no part of its state, so not in its registry."""

    original: nn.Module
    root: nn.Module
    code: str
    sample: Live
    precision: torch.dtype | None


def _precision(module: nn.Module) -> torch.dtype | None:
    weight = next(module.parameters(), None)
    return None if weight is None else weight.dtype


class StagedBackbone(nn.Module):
    """A frozen backbone as a list of stages.

    Frozen means three things, and all three hold for good: no parameter takes a gradient, batch
    norm and dropout stay in evaluation mode even after `.train()`, and no buffer changes. Where a
    module around it sets `requires_grad` of all its parameters, the stages clear it again as they
    run. Only `.train()` on a module inside a stage gets past this. The parameters lie in the
    memory of the model that was cut; modules and buffers are its own.

    Attributes:
        stages: One more than there are cuts, in graph order.
        places: The cuts in graph order, each with places and taps.
        tap_shapes: Shapes of each cut's taps, by its name.
        input_shapes: Shapes of the inputs, without the batch axis.
        output_shape: Shape of the answer, without the batch axis.
    """

    def __init__(
        self,
        original: nn.Module,
        sample: tuple[Tensor, ...],
        analysis: Analysis,
        cuts: Sequence[Cut],
        parts: Partition,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            make_stage(analysis, parts, stage) for stage in range(len(parts.bodies))
        )
        self.places = tuple(cuts)
        values = analysis.values
        self.tap_shapes: Mapping[str, tuple[TapShape, ...]] = {
            cut.name: tuple(_tap_shape(values[node].shape[1:]) for node in taps)
            for cut, taps in zip(cuts, parts.taps, strict=True)
        }
        self.input_shapes = tuple(tuple(tensor.shape[1:]) for tensor in sample)
        self.output_shape = values[analysis.answer].shape[1:]
        first = tuple(tensor[:1].clone() for tensor in sample)
        self._kept = _Kept(original, analysis.root, analysis.code, first, _precision(self))
        self.eval()

    @property
    def original(self) -> nn.Module:
        """The model that was cut, the user's own object."""
        return self._kept.original

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the cuts, in graph order."""
        return tuple(cut.name for cut in self.places)

    @property
    def num_outputs(self) -> int:
        """Size of the answer's last axis: classes, or values in regression."""
        return self.output_shape[-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer as the model that was cut would in evaluation mode, bit for bit."""
        live: Live = inputs
        for stage in self.stages:
            live, _ = stage(live)
        return live[0]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode whatever `mode` says."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Stay without gradients whatever `requires_grad` says."""
        return super().requires_grad_(False)

    def stage_flops(self, convention: Convention = "2mac") -> tuple[int, ...]:
        """FLOPs of each stage alone, at batch 1."""
        costs = []
        live = self._sample()
        with torch.no_grad():
            for stage in self.stages:
                costs.append(count_flops(stage, (live,), convention))
                live, _ = stage(live)
        return tuple(costs)

    def _sample(self) -> Live:
        """The first sample, where the weights are now and as exact as they are now."""
        weight, sample = next(self.parameters(), None), self._kept.sample
        if weight is None:
            return sample
        changed = weight.dtype != self._kept.precision
        return tuple(
            t.to(weight.device, weight.dtype if changed and t.is_floating_point() else t.dtype)
            for t in sample
        )

    def weights_digest(self) -> str:
        """SHA-256 of the architecture and of every parameter and buffer; the cuts do not count."""
        digest = hashlib.sha256(self._kept.code.encode())
        root = self._kept.root
        state = dict(root.named_parameters()) | dict(root.named_buffers())
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            )
        return digest.hexdigest()


def cut(
    model: nn.Module,
    after: Sequence[str | Cut],
    sample: Tensor | tuple[Tensor, ...],
    *,
    leaves: Sequence[type[nn.Module]] = (),
) -> StagedBackbone:
    """Cut a model at named places into frozen stages; the model itself stays as it is.

    The stages run one after another give the model's answer in evaluation mode bit for bit. A
    place is a module path, meaning that module's output, or a node name as torchvision's
    NodePathTracer gives it.

    Args:
        model: Any module that torch.fx can trace and that returns one tensor.
        after: Places or `Cut`s, in any order.
        sample: What `model` gets, batch axis first; a tuple for several inputs.
        leaves: Module classes to keep whole, for those that FX cannot trace.

    Raises:
        CutError: The model cannot be traced, or cannot be cut there.
    """
    inputs = as_tuple(sample)
    cuts = _spelled(after)
    _check_names(cuts)
    analysis = analyse(model, inputs, leaves)
    flow = analysis.flow
    cuts = _in_order(cuts, analysis, flow)
    parts = _divide(cuts, analysis, flow)
    for node in _to_change(analysis, flow, parts):
        make_out_of_place(analysis.root, node, analysis.node_names[node], analysis.hazards)
    return StagedBackbone(model, inputs, analysis, cuts, parts)


def _spelled(after: Sequence[str | Cut] | Cut) -> list[Cut]:
    """The cuts, each with both its places and its taps."""
    if isinstance(after, str | Cut):
        place = f"Cut({after.name!r}, ...)" if isinstance(after, Cut) else repr(after)
        raise CutError(f"after is a list of places, also for a single one: after=[{place}].")
    cuts = [Cut(place, (place,)) if isinstance(place, str) else place for place in after]
    return [Cut(each.name, each.after or each.taps, each.taps or each.after) for each in cuts]


def _check_names(cuts: Sequence[Cut]) -> None:
    names = [cut.name for cut in cuts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CutError(f"Two cuts are called {', '.join(map(repr, twice))}. Name each one once.")
    if not cuts:
        raise CutError("There is no place to cut after. Give at least one in `after`.")


def _in_order(cuts: Sequence[Cut], analysis: Analysis, flow: Flow) -> list[Cut]:
    """The cuts in graph order, each with its places checked."""
    reach: dict[str, frozenset[fx.Node]] = {}
    for each in cuts:
        ends = [_end(analysis, place) for place in each.places]
        reach[each.name] = frozenset(
            node for node in flow.ancestors(ends) if flow.is_computed(node)
        )
        if not reach[each.name]:
            raise CutError(
                f"Cut {each.name!r} is at the input: nothing runs before it. Cut after a layer."
            )
        if analysis.values[analysis.answer].same_as in ends:
            raise CutError(
                f"Cut {each.name!r} is at the output of the whole backbone: nothing runs after "
                "it, and the backbone's own exit is already there. Cut before the last layer."
            )
    ordered = sorted(
        cuts,
        key=lambda each: (
            max(map(flow.order.__getitem__, reach[each.name])),
            len(reach[each.name]),
        ),
    )
    _check_order([(each.name, reach[each.name]) for each in ordered])
    return ordered


def _check_order(ordered: Sequence[tuple[str, frozenset[fx.Node]]]) -> None:
    """Refuse a cut that runs nothing which the cuts before it have not run."""
    reached: frozenset[fx.Node] = frozenset()
    for index, (name, reach) in enumerate(ordered):
        before = ordered[:index]
        same = [other for other, others in before if others == reach]
        if same:
            raise CutError(
                f"Cuts {same[0]!r} and {name!r} are at one place: no operation lies between them. "
                "Keep one of them."
            )
        if reach <= reached:
            raise CutError(
                f"Cut {name!r} needs nothing that the cuts before it have not run "
                f"({', '.join(repr(other) for other, _ in before)} together): its stage would be "
                "empty. Leave it out, or give its taps to the last of them."
            )
        reached |= reach


def _end(analysis: Analysis, place: str) -> fx.Node:
    return analysis.values[analysis.names.find(place)].same_as


def _divide(cuts: Sequence[Cut], analysis: Analysis, flow: Flow) -> Partition:
    ends = [[_end(analysis, place) for place in each.places] for each in cuts]
    taps = [tuple(_end(analysis, place) for place in each.taps) for each in cuts]
    return partition(flow, ends, taps)


def _to_change(analysis: Analysis, flow: Flow, parts: Partition) -> list[fx.Node]:
    """In-place operations that would change what someone outside their stage holds."""
    held = {node for group in (*parts.live, *parts.taps) for node in group}
    found = []
    for writer, stage in parts.stage_of.items():
        written = analysis.values[writer].written
        for holder in analysis.values if written else ():
            value = analysis.values[holder]
            if flow.order[holder] >= flow.order[writer] or not value.storages & written:
                continue
            if holder in held or parts.stage_of.get(holder) != stage:
                found.append(writer)
                break
    return found


def _tap_shape(shape: tuple[int, ...]) -> TapShape:
    return FeatureShape(*shape) if len(shape) == 3 else shape
