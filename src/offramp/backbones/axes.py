"""Meaning of the axes of tensors in a backbone: batch, channels, height, width.

Tensors do not state it. The graph runs on tensors without values for one sample, for three, and for
inputs twice as high or twice as wide; the axes that change with one of these belong to it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from offramp.backbones.analysis import Analysis
from offramp.backbones.maps import MapWatch
from offramp.backbones.staged import StagedBackbone
from offramp.backbones.values import Interpreter
from offramp.compute import FlopCounter, rehearse
from offramp.errors import CutError

Axis = Literal["batch", "channels", "height", "width", "positions", "windows", "other", "unknown"]
"""`positions` is height and width in one axis, `windows` batch and something else in one."""

Axes = tuple[Axis, ...]

MAP: Axes = ("batch", "channels", "height", "width")
"""The axes of a feature map, which is what branches read."""

Shape = tuple[int, ...]
Tap = tuple[str, int]
"""A cut, and which of its taps."""

K = TypeVar("K")

_SAMPLES = 3
_KNOWN_BY_SIZE: frozenset[Axis] = frozenset({"height", "width", "positions"})
_LAYERS_ON_MAPS = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
_FUNCTIONS_ON_MAPS = (
    F.conv2d,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d,
)


@dataclass(frozen=True, eq=False)
class Rehearsed:
    """Results of running a graph without values.

    Attributes:
        flops: FLOPs of each node that has any (2mac), for one sample.
        axes: Axes of each node that gives one tensor.
    """

    flops: Mapping[fx.Node, int]
    axes: Mapping[fx.Node, Axes]


def rehearse_graph(analysis: Analysis, inputs: tuple[Tensor, ...]) -> Rehearsed:
    """FLOPs and axes of every node of a graph, for inputs of one sample."""

    def run(root: nn.Module, given: tuple[Any, ...]) -> tuple[Mapping[fx.Node, int], _Shapes[Any]]:
        measure = partial(_shapes_in_graph, root, analysis)
        with _NormsPass():
            with FlopCounter() as counter:
                first = _Recorder(root, analysis.graph, {}, counter)
                first.run(*_copies(given))
            return first.flops, _compare(first.shapes, measure, given)

    flops, shapes = rehearse(analysis.root, inputs, run)
    return Rehearsed(
        flops,
        {
            node: shapes.axes(node, on_maps=_is_beside_a_layer_on_maps(node, analysis.root))
            for node in shapes.single
        },
    )


def check_taps(backbone: StagedBackbone, cuts: Iterable[str]) -> None:
    """Refuse taps whose rows are not samples, or whose channels are not first.

    Raises:
        CutError: A tap at one of `cuts` does not have the batch as its first axis, is a map
            with its channels last, or may be one for all that can be seen.
    """

    def run(stages: nn.Module, given: tuple[Any, ...]) -> tuple[_Shapes[Tap], frozenset[Tap]]:
        measure = partial(_shapes_of_taps, stages, backbone.cuts)
        single: dict[Tap, Shape] = {}
        taps: dict[Tap, Tensor] = {}
        with _NormsPass():
            with MapWatch() as watch:
                measure(given, single, taps)
            maps = frozenset(key for key, tap in taps.items() if watch.is_map(tap))
            return _compare(single, measure, given), maps

    sample = tuple(torch.zeros(1, *shape) for shape in backbone.input_shapes)
    shapes, maps = rehearse(backbone.stages, sample, run)
    for name in cuts:
        for index, place in enumerate(backbone.places[backbone.cuts.index(name)].taps):
            _check_tap(name, place, shapes, (name, index), maps)


def _check_tap(
    name: str, place: str, shapes: "_Shapes[Tap]", key: Tap, maps: frozenset[Tap]
) -> None:
    axes, shape = shapes.axes(key), shapes.single[key]
    if axes[0] != "batch":
        several = shapes.several.get(key)
        grown = "" if several is None else f" and {several} for {_SAMPLES}"
        raise CutError(
            f"Cut {name!r}: {place!r} has shape {shape} for one sample{grown}, so its rows are not "
            "samples, and no branch can read it. Cut where the first axis is the batch, such as "
            "at the end of a block; `offramp cuts` lists the axes of every place."
        )
    if axes == ("batch", "height", "width", "channels"):
        raise CutError(
            f"Cut {name!r}: {place!r} is a map with its channels last, {shape} for one sample, and "
            "branches read channels x height x width. Cut where the channels come first; "
            "`offramp cuts` lists the axes of every place."
        )
    if len(axes) == len(MAP) and not _KNOWN_BY_SIZE & set(axes) and key not in maps:
        raise CutError(
            f"Cut {name!r}: {place!r} has shape {shape} for one sample, and it is unclear which "
            "axis holds the channels: none grows with the height or width of the input, and no "
            "convolution, norm or pooling layer reads or returns this tensor. Branches read "
            "channels x height x width. Cut at the output of such a layer."
        )


@dataclass(frozen=True, eq=False)
class _Shapes(Generic[K]):
    """Shapes of the same tensors for different inputs, as far as the model got."""

    single: Mapping[K, Shape]
    several: Mapping[K, Shape]
    taller: Sequence[Mapping[K, Shape]]
    wider: Sequence[Mapping[K, Shape]]

    def axes(self, key: K, *, on_maps: bool = False) -> Axes:
        """The axes of one tensor; `on_maps` says that a layer reads or gives it as a map."""
        found = [self._axis(key, index) for index in range(len(self.single[key]))]
        if found[:1] == ["batch"] and self._changes((*self.taller, *self.wider), key, 0):
            # A larger picture became more rows, so the other axes say nothing of it.
            found = ["unknown" if axis == "other" else axis for axis in found]
        if found.count("other") == 1 and "unknown" not in found:
            found[found.index("other")] = "channels"
        fits = len(found) == len(MAP) and all(
            axis in (wanted, "other", "unknown") for axis, wanted in zip(found, MAP, strict=True)
        )
        return MAP if on_maps and fits and found[0] == "batch" else tuple(found)

    def _axis(self, key: K, index: int) -> Axis:
        size = self.single[key][index]
        tall, wide = self._changes(self.taller, key, index), self._changes(self.wider, key, index)
        rows = self._changes([self.several], key, index)
        if rows:
            return "batch" if (size, self.several[key][index]) == (1, _SAMPLES) else "windows"
        if rows is None and index == 0:
            return "batch" if size == 1 and not tall and not wide else "windows"
        if tall or wide:
            return "positions" if tall and wide else "height" if tall else "width"
        return "unknown" if tall is None or wide is None else "other"

    def _changes(self, runs: Sequence[Mapping[K, Shape]], key: K, index: int) -> bool | None:
        """Whether the size differs in any of `runs`; None if none of them got there."""
        shape = self.single[key]
        others = [each[key] for each in runs if len(each.get(key, ())) == len(shape)]
        return any(other[index] != shape[index] for other in others) if others else None


def _compare(
    single: Mapping[K, Shape],
    measure: Callable[[tuple[Tensor, ...], dict[K, Shape]], None],
    inputs: tuple[Tensor, ...],
) -> _Shapes[K]:
    """Measure again for several samples, and for inputs twice as high or twice as wide."""

    def tried(given: Iterable[Tensor]) -> Mapping[K, Shape]:
        shapes: dict[K, Shape] = {}
        with suppress(Exception):  # not every model takes every size; what it got to stays
            measure(tuple(given), shapes)
        return shapes

    images = [index for index, each in enumerate(inputs) if each.ndim == len(MAP)]

    def stretched(axis: int) -> list[Mapping[K, Shape]]:
        return [
            tried(_repeated(t, axis, 2) if i == image else t for i, t in enumerate(inputs))
            for image in images
        ]

    several = tried(_repeated(each, 0, _SAMPLES) for each in inputs)
    return _Shapes(single, several, stretched(2), stretched(3))


def _repeated(tensor: Tensor, axis: int, times: int) -> Tensor:
    shape = [times * size if i == axis else size for i, size in enumerate(tensor.shape)]
    return tensor.new_zeros(shape)


def _copies(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone() for tensor in inputs)  # the model may change them in place


def _shapes_in_graph(
    root: nn.Module,
    analysis: Analysis,
    inputs: tuple[Tensor, ...],
    shapes: dict[fx.Node, Shape],
) -> None:
    _Recorder(root, analysis.graph, shapes).run(*_copies(inputs))


def _shapes_of_taps(
    stages: nn.Module,
    cuts: Sequence[str],
    inputs: tuple[Tensor, ...],
    shapes: dict[Tap, Shape],
    tensors: dict[Tap, Tensor] | None = None,
) -> None:
    live = _copies(inputs)
    for cut, stage in zip(cuts, stages.children(), strict=False):
        body = stage.get_submodule("body")  # called as a module, it prints what fails
        live, taps = Interpreter(body).run(*live)
        shapes |= {(cut, index): tuple(tap.shape) for index, tap in enumerate(taps)}
        if tensors is not None:
            tensors |= {(cut, index): tap for index, tap in enumerate(taps)}


class _NormsPass(TorchFunctionMode):
    """Makes batch norms return their input: shapes stay the same, and much time is saved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is F.batch_norm and args else func(*args, **(kwargs or {}))


class _Recorder(Interpreter):
    """Interpreter that records each tensor's shape and, with a counter, each node's FLOPs."""

    def __init__(
        self,
        root: nn.Module,
        graph: fx.Graph,
        shapes: dict[fx.Node, Shape],
        counter: FlopCounter | None = None,
    ) -> None:
        super().__init__(root, graph=graph)
        self.shapes = shapes
        self.flops: dict[fx.Node, int] = {}
        self._counter = counter

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.total if self._counter else 0
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n] = tuple(result.shape)
        if self._counter and self._counter.total > before:
            self.flops[n] = self._counter.total - before
        return result


def _is_beside_a_layer_on_maps(node: fx.Node, root: nn.Module) -> bool:
    """Whether the node is a layer such as a convolution, or is read by one."""
    readers = [user for user in node.users if user.args and user.args[0] is node]
    return any(_works_on_maps(each, root) for each in (node, *readers))


def _works_on_maps(node: fx.Node, root: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(root.get_submodule(str(node.target)), _LAYERS_ON_MAPS)
    return node.op == "call_function" and node.target in _FUNCTIONS_ON_MAPS
