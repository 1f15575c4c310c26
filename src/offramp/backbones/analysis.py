"""Analysis of a model before it is cut: a frozen copy, its graph, and values on a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from offramp.backbones.aliasing import Hazards, read_what_was_written
from offramp.backbones.expected import Expected, alone, consult
from offramp.backbones.fingerprint import Fingerprint
from offramp.backbones.names import Names, name_places
from offramp.backbones.partition import Flow, unpack
from offramp.backbones.sized import SizedTracer
from offramp.backbones.tracing import Traced, trace
from offramp.backbones.values import Value, observe
from offramp.errors import CutError


@dataclass(frozen=True, eq=False)
class Analysis:
    """A model that is ready to be cut.

    Attributes:
        root: The frozen copy; the graph's targets are its attributes.
        graph: The whole forward pass, in which readers of a changed tensor follow its change.
        fingerprint: Fingerprint of the model as it was traced.
        expected: The model's own answer on the sample.
        by_size: Whether the graph depends on sizes of the sample.
    """

    root: nn.Module
    graph: fx.Graph
    fingerprint: Fingerprint
    values: Mapping[fx.Node, Value]
    names: Names
    node_names: Mapping[fx.Node, str]
    hazards: Hazards
    expected: Expected
    by_size: bool

    @property
    def answer(self) -> fx.Node:
        """The node whose tensor the model returns."""
        return _answer(self.graph, self.values)

    @property
    def flow(self) -> Flow:
        """Dependencies between the nodes of the current graph."""
        return Flow(self.graph, self.values, self.hazards)


def analyse(
    model: nn.Module, sample: tuple[Tensor, ...], leaves: Sequence[type[nn.Module]] = ()
) -> Analysis:
    """Copy, run and trace a model.

    Raises:
        CutError: It cannot be copied, traced or run, does not give one tensor, or its answer is
            not a function of the input alone.
    """
    expected = consult(model, sample)
    root = expected.warm
    with alone(sample):  # in inference mode tensors would count no versions
        traced, by_size = _traced(root, sample, leaves)
        fingerprint = Fingerprint.of(root, traced.graph)
        values = observe(root, traced.graph, sample)
        if unpack(traced.graph, values):
            values = observe(root, traced.graph, sample)
    _answer(traced.graph, values)
    names = name_places(traced, values)
    hazards = read_what_was_written(traced.graph, values)
    return Analysis(
        root, traced.graph, fingerprint, values, names, traced.names, hazards, expected, by_size
    )


def _traced(
    root: nn.Module, sample: tuple[Tensor, ...], leaves: Sequence[type[nn.Module]]
) -> tuple[Traced, bool]:
    """The graph for any size, or else for the sample's size; and whether it is the latter."""
    try:
        return trace(root, sample, leaves), False
    except CutError:
        return trace(root, sample, leaves, SizedTracer), True


def as_tuple(sample: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The inputs in `sample`.

    Raises:
        CutError: It is neither a tensor nor a tuple of tensors, has no batch axis, is empty, or
            holds NaN or infinity.
    """
    inputs: tuple[object, ...] = sample if isinstance(sample, tuple) else (sample,)
    tensors = tuple(tensor for tensor in inputs if isinstance(tensor, Tensor) and tensor.ndim)
    if not inputs or len(tensors) < len(inputs):
        raise CutError(
            "sample must be a tensor with a batch axis, or a tuple of them in forward's order; "
            f"got {type(sample).__name__}."
        )
    for tensor in tensors:
        if not tensor.numel():
            raise CutError(
                f"sample is empty: {'x'.join(map(str, tensor.shape))}. Give at least one sample, "
                "such as torch.zeros(1, 3, 224, 224)."
            )
        if not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise CutError(
                "sample holds NaN or infinity, so the answer of the stages cannot be compared with "
                "the model's. Give finite numbers, such as zeros."
            )
    return tensors


def _answer(graph: fx.Graph, values: Mapping[fx.Node, Value]) -> fx.Node:
    [result] = graph.output_node().args
    if isinstance(result, fx.Node) and values[result].kind == "tensor":
        return result
    gives = values[result].about if isinstance(result, fx.Node) else f"a {type(result).__name__}"
    raise CutError(
        f"The model returns {gives}, but its last stage must return one tensor. Wrap it in a "
        "module whose forward returns only the output tensor."
    )
