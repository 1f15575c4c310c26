"""Cutting a backbone into frozen stages that compose to exactly the whole."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from offramp.answering.inputs import NONE, Numbers
from offramp.arguments import check_kind
from offramp.backbones.aliasing import make_out_of_place
from offramp.backbones.analysis import Analysis, analyse, as_tuple
from offramp.backbones.cuts import Cut as Cut
from offramp.backbones.cuts import check_names, divide, in_order, spelled
from offramp.backbones.fingerprint import Fingerprint
from offramp.backbones.inputs import Inputs
from offramp.backbones.leaves import find_leaves, leaf_names
from offramp.backbones.partition import Flow, Partition
from offramp.backbones.stage import Live, Partly, make_stage
from offramp.compute import count_flops
from offramp.cost import Convention
from offramp.errors import CutError, ShapeError
from offramp.spec import FeatureShape, TapShape, dims


@dataclass(frozen=True, eq=False)
class _Kept:
    """Data that a staged backbone keeps outside its state dict."""

    original: nn.Module
    fingerprint: Fingerprint
    sample: Live
    precision: torch.dtype | None
    tap_dtypes: Mapping[str, tuple[torch.dtype | None, ...]]

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kept":
        """With the user's model as it is, which need not be one that can be copied."""
        return replace(
            self, fingerprint=deepcopy(self.fingerprint, memo), sample=deepcopy(self.sample, memo)
        )


def _precision(module: nn.Module) -> torch.dtype | None:
    weight = next(module.parameters(), None)
    return None if weight is None else weight.dtype


class StagedBackbone(nn.Module):
    """A frozen backbone as a list of stages.

    Frozen means: parameters never get gradients, batch norm and dropout stay in evaluation mode
    even after `.train()`, and buffers do not change. If a module around it sets `requires_grad` of
    all its parameters, the stages clear it when they run. Only `.train()` on a module inside a
    stage has an effect. Parameters share memory with the model that was cut; modules and buffers
    are separate.

    Attributes:
        stages: The stages in graph order, one more than there are cuts.
        places: The cuts in graph order, each with places and taps.
        tap_shapes: Shapes of each cut's taps, by its name.
        tap_nodes: For each cut and each of its taps, the node of the graph that gives it; taps of
            several cuts that have one node are the same tensor.
        inputs: Names of the inputs, and what is computed from which of them.
        input_shapes: Shapes of the inputs, without the batch axis.
        output_shape: Shape of the answer, without the batch axis; () where it is one value.
        dtypes: Of the inputs, of every tap, and of the answer, as on the sample.
        leaves: Qualified names of the module classes that were kept whole.
    """

    def __init__(
        self,
        original: nn.Module,
        sample: tuple[Tensor, ...],
        analysis: Analysis,
        cuts: Sequence[Cut],
        parts: Partition,
        leaves: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            make_stage(analysis, parts, stage) for stage in range(len(parts.bodies))
        )
        self.places = tuple(cuts)
        self.leaves = leaves
        values = analysis.values
        self.tap_shapes: Mapping[str, tuple[TapShape, ...]] = {
            cut.name: tuple(_tap_shape(values[node].shape[1:]) for node in taps)
            for cut, taps in zip(cuts, parts.taps, strict=True)
        }
        named = {cut.name: taps for cut, taps in zip(cuts, parts.taps, strict=True)}
        self.tap_nodes: Mapping[str, tuple[str, ...]] = {
            cut: tuple(node.name for node in taps) for cut, taps in named.items()
        }
        self.inputs = Inputs.of(analysis.flow, named, analysis.answer)
        self.input_shapes = tuple(tuple(tensor.shape[1:]) for tensor in sample)
        self.output_shape = values[analysis.answer].shape[1:]
        read = [*(node for taps in parts.taps for node in taps), analysis.answer]
        given = [tensor.dtype for tensor in sample] + [values[node].dtype for node in read]
        self.dtypes = tuple(dtype for dtype in given if dtype is not None)
        first = tuple(tensor[:1].clone() for tensor in sample)
        tap_dtypes = {
            cut.name: tuple(values[node].dtype for node in taps)
            for cut, taps in zip(cuts, parts.taps, strict=True)
        }
        self._kept = _Kept(original, analysis.fingerprint, first, _precision(self), tap_dtypes)
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
    def input_dtypes(self) -> tuple[torch.dtype, ...]:
        """Types of the inputs; those of values follow the precision of the weights."""
        return tuple(tensor.dtype for tensor in self._sample())

    @property
    def num_outputs(self) -> int:
        """Size of the answer's last axis: classes, or values in regression."""
        return self.output_shape[-1] if self.output_shape else 1

    def features(self, cut: str) -> TapShape | tuple[TapShape, ...]:
        """Shape of the tap at `cut`, or of all its taps, for building a branch.

        Raises:
            CutError: There is no such cut.
        """
        shapes = self._shapes_at(cut)
        return shapes[0] if len(shapes) == 1 else shapes

    def zero_taps(self, cut: str, device: torch.device | str | None = None) -> tuple[Tensor, ...]:
        """Zeros in the shapes of a cut's taps, for one sample, in the current precision.

        Raises:
            CutError: There is no such cut.
        """
        shapes, now = self._shapes_at(cut), _precision(self)
        changed = now != self._kept.precision
        return tuple(
            torch.zeros(1, *dims(shape), device=device, dtype=now if changed else dtype)
            for shape, dtype in zip(shapes, self._kept.tap_dtypes[cut], strict=True)
        )

    def _shapes_at(self, cut: str) -> tuple[TapShape, ...]:
        if cut not in self.tap_shapes:
            raise CutError(f"There is no cut {cut!r}; the backbone is cut at {list(self.cuts)}.")
        return self.tap_shapes[cut]

    def check_inputs(self, inputs: Sequence[Any], *, absent: bool = False) -> None:
        """Refuse what cannot be inputs. FX tracing, which has no values, skips this.

        Args:
            inputs: The inputs.
            absent: Whether None may stand for an input, but not for all of them.

        Raises:
            ArgumentError: An input is not a tensor.
            ShapeError: There is another number of inputs, or one has another number of axes.
        """
        if any(isinstance(each, fx.Proxy) for each in inputs):
            return
        there = [not (absent and each is None) for each in inputs]
        for place, each in enumerate(inputs):
            remedy = "Give a tensor with a batch axis, such as torch.from_numpy(array)[None]."
            if there[place] or not any(there):
                check_kind(each, Tensor, f"input {place}", remedy)
        wanted = [1 + len(shape) for shape in self.input_shapes]
        alike = [not own or each.ndim == axes for own, each, axes in zip(there, inputs, wanted)]  # noqa: B905
        if len(inputs) != len(wanted) or not all(alike):
            shapes = ", ".join(str(("B", *shape)) for shape in self.input_shapes)
            given = [None if each is None else tuple(each.shape) for each in inputs]
            raise ShapeError(
                f"the inputs have shapes {', '.join(map(str, given))}, "
                f"but the backbone was cut for {shapes}, with B samples in a batch. Give inputs "
                "of these shapes."
            )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answer as the frozen model would, bit for bit.

        The frozen model is the one that was cut, in evaluation mode and with weights that do not
        require gradients. If they do, torch chooses another kernel for some matrix products even
        under `no_grad`, and the last bits of the answer differ (5e-7).
        """
        self.check_inputs(inputs)
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

    def stage_flops(
        self, convention: Convention = "2mac", *, absent: Numbers = NONE
    ) -> tuple[int, ...]:
        """FLOPs of each stage alone, at batch 1; what needs an absent input is not counted."""
        costs = []
        sample = enumerate(self._sample())
        live: Partly = tuple(None if number in absent else each for number, each in sample)
        with torch.no_grad():
            for stage in self.stages:
                costs.append(count_flops(stage, (live,), convention))
                live, _ = stage(live)
        return tuple(costs)

    def _sample(self) -> Live:
        """The first sample, on the current device and in the current precision."""
        weight, sample = next(self.parameters(), None), self._kept.sample
        if weight is None:
            return sample
        changed = weight.dtype != self._kept.precision
        return tuple(
            t.to(weight.device, weight.dtype if changed and t.is_floating_point() else t.dtype)
            for t in sample
        )

    def weights_digest(self) -> str:
        """SHA-256 of all that decides the answer: operations, settings, weights, but not cuts."""
        return self._kept.fingerprint.digest()


def cut(
    model: nn.Module,
    after: Sequence[str | Cut],
    sample: Tensor | tuple[Tensor, ...],
    *,
    leaves: Sequence[type[nn.Module] | str] = (),
) -> StagedBackbone:
    """Cut a model at named places into frozen stages; the model itself stays as it is.

    The stages, run one after another, give the answer of the frozen model bit for bit: in
    evaluation mode, with weights that do not require gradients. This is checked on the sample and,
    if all inputs hold floats, on normal values in its shape, which also show what a sample of zeros
    would hide. A place is a module path, which refers to that module's output, or a node name as in
    torchvision's NodePathTracer.

    Args:
        model: Any module that torch.fx can trace and that returns one tensor.
        after: Places or `Cut`s, in any order.
        sample: What `model` gets, batch axis first; a tuple for several inputs.
        leaves: Module classes to keep whole, for those that FX cannot trace; names of classes
            among the model's own modules do as well.

    Raises:
        CutError: The model cannot be traced, or cannot be cut there.
    """
    inputs = as_tuple(sample)
    cuts = spelled(after)
    check_names(cuts)
    classes = find_leaves(model, leaves)
    analysis = analyse(model, inputs, classes)
    flow = analysis.flow
    cuts = in_order(cuts, analysis, flow)
    parts = divide(cuts, analysis, flow)
    for node in _to_change(analysis, flow, parts):
        make_out_of_place(analysis.root, node, analysis.node_names[node], analysis.hazards)
    staged = StagedBackbone(model, inputs, analysis, cuts, parts, leaf_names(model, classes))
    analysis.expected.check(staged, group=analysis.by_size)
    return staged


def _to_change(analysis: Analysis, flow: Flow, parts: Partition) -> list[fx.Node]:
    """In-place operations that would change a tensor needed outside their stage."""
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


def check_staged(backbone: object, name: str = "backbone") -> None:
    """Refuse an argument that is not a cut backbone.

    Raises:
        ArgumentError: It is something else, such as the module itself.
    """
    check_kind(
        backbone,
        StagedBackbone,
        name,
        "Give a backbone that has been cut: cut(model, after=[...], sample=images).",
    )
