"""The graph of a model, with a name by module path for every node."""

import inspect
import math
import re
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from timm.layers._fx import get_notrace_functions, get_notrace_modules
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from offramp.backbones.operators import ChangingProxy
from offramp.errors import CutError

_NUMBERED = re.compile(r"(.+)_[0-9]+")
# torchvision's own list of leaves is all of torchvision.ops; these few hold layers worth naming.
_TRACED_OPS = (torchvision.ops.SqueezeExcitation, nn.Sequential)


@dataclass(frozen=True, eq=False)
class Traced:
    """What tracing a model found.

    Attributes:
        root: The model that was traced; the graph's targets are its attributes.
        graph: The whole forward pass.
        names: Dotted name of every node, as torchvision's NodePathTracer gives it.
        outputs: What each call of each module gave, in call order, by module path; a call gives a
            node, or a nest of tuples and dicts of nodes.
    """

    root: nn.Module
    graph: fx.Graph
    names: dict[fx.Node, str]
    outputs: dict[str, list[Any]]


class PathTracer(NodePathTracer):  # type: ignore[misc]  # torchvision has no types
    """NodePathTracer that also keeps what every call of every module returned."""

    def __init__(self, leaves: Sequence[type[nn.Module]] = ()) -> None:
        super().__init__(
            leaf_modules=[*_op_leaves(), *_timm_leaves(), *leaves],
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=_timm_functions(),
        )
        self.outputs: dict[str, list[Any]] = defaultdict(list)
        self.failed_in: str | None = None
        self._latest: dict[str, str] = {}

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace a call of a module, or record it whole, and keep what it gave."""
        path = self.path_of_module(m)
        try:
            result = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or path
            raise
        self.outputs[path].append(fx.node.map_aggregate(result, _node_of))
        return result

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A stand-in for a value that also records changes in place."""
        return ChangingProxy(node, self)

    def _get_node_qualname(self, module_qualname: str, node: fx.Node) -> str:
        """Name a node as NodePathTracer does, without comparing it with every earlier name."""
        name = module_qualname
        if node.op != "call_module":
            name = f"{name}.{node}" if name else str(node)
        if numbered := _NUMBERED.fullmatch(name):
            name = numbered[1]
        if name in self._latest:
            postfix = self._latest[name][len(name) :]
            name += f"_{int(postfix[1:]) + 1 if postfix else 1}"
        self._latest[name] = name
        if numbered := _NUMBERED.fullmatch(name):
            self._latest[numbered[1]] = name
        return name


def trace(model: nn.Module, num_inputs: int, leaves: Sequence[type[nn.Module]] = ()) -> Traced:
    """Trace `model` called with its first `num_inputs` arguments, the others at their defaults.

    Raises:
        CutError: FX cannot trace it; the text names the module, the line and what to do.
    """
    tracer = PathTracer(leaves)
    try:
        graph = tracer.trace(model, _defaults(model, num_inputs))
    except Exception as error:
        raise CutError(_why(model, tracer, error)) from error
    _drop_defaults(graph, num_inputs)
    kept = set(graph.nodes)
    names = {node: name for node, name in tracer.node_to_qualname.items() if node in kept}
    return Traced(model, graph, names, dict(tracer.outputs))


def _op_leaves() -> list[type[nn.Module]]:
    return [
        member
        for _, member in inspect.getmembers(torchvision.ops, inspect.isclass)
        if issubclass(member, nn.Module) and not issubclass(member, _TRACED_OPS)
    ]


def _timm_leaves() -> list[type[nn.Module]]:
    return get_notrace_modules()  # type: ignore[no-untyped-call, no-any-return]


def _timm_functions() -> tuple[Callable[..., Any], ...]:
    return tuple(get_notrace_functions())  # type: ignore[no-untyped-call]


def _node_of(value: Any) -> Any:
    return value.node if isinstance(value, fx.Proxy) else value


def _defaults(model: nn.Module, num_inputs: int) -> dict[str, Any]:
    """Arguments of `forward` past the inputs, at their defaults; checks the number of inputs."""
    arguments = [
        argument
        for argument in inspect.signature(model.forward).parameters.values()
        if argument.kind in (argument.POSITIONAL_ONLY, argument.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(argument.default is argument.empty for argument in arguments)
    if not required <= num_inputs <= len(arguments):
        takes = ", ".join(argument.name for argument in arguments)
        raise CutError(
            f"{type(model).__name__}.forward takes ({takes}), {required} of them required, but the "
            f"sample holds {num_inputs}. Give sample as a tuple in forward's order; a forward "
            "with *args must be wrapped in one that names its inputs."
        )
    return {argument.name: argument.default for argument in arguments[num_inputs:]}


def _drop_defaults(graph: fx.Graph, num_inputs: int) -> None:
    """Remove the placeholders of arguments left at their defaults, and FX's checks of them."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    for extra in placeholders[num_inputs:]:
        for user in reversed(_closure_of_users(extra)):
            graph.erase_node(user)
        graph.erase_node(extra)


def _closure_of_users(node: fx.Node) -> list[fx.Node]:
    """Nodes that read `node`, directly or not, in graph order: FX puts only checks there."""
    found = {node}
    for later in node.graph.nodes:
        if found.intersection(later.all_input_nodes):
            found.add(later)
    return [later for later in node.graph.nodes if later in found and later is not node]


def _why(model: nn.Module, tracer: PathTracer, error: Exception) -> str:
    if isinstance(error, CutError):
        return str(error)
    path = tracer.failed_in
    module = model.get_submodule(path) if path else model
    where = f"{path} ({type(module).__name__})" if path else f"{type(module).__name__}.forward"
    return (
        f"FX cannot trace {where}, at {_line_of(error)}: {type(error).__name__}: {error} "
        "A cut needs the order of operations without the values: take out Python control flow "
        "that depends on a tensor's values there, or keep that module whole by "
        f"cut(..., leaves=[{type(module).__name__}]), and cut outside it."
    )


def _line_of(error: Exception) -> str:
    """The innermost line outside torch itself, with its text."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = str(torch.__path__[0])
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith(inside)
        and frame.filename not in (__file__, inspect.getfile(NodePathTracer))
    ]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno} `{frame.line}`"
