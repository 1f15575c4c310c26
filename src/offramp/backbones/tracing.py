"""The graph of a model, with a name by module path for every node."""

import inspect
import math
import os
import re
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import einops
import numpy as np
import torch
import torchvision
from timm.layers._fx import get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, jit, nn
from torchvision.models.feature_extraction import NodePathTracer

from offramp.backbones.operators import ChangingProxy
from offramp.errors import CutError

_NUMBERED = re.compile(r"(.+)_[0-9]+")
# torchvision's own list of leaves is all of torchvision.ops; these few hold layers worth naming.
_TRACED_OPS = (torchvision.ops.SqueezeExcitation, nn.Sequential)
# einops looks at a tensor's class, which of a proxy is none that it knows
_EINOPS = (einops.rearrange, einops.reduce, einops.repeat, einops.einsum)
# makers of tensors: given a size that is a proxy they would raise before FX sees the call
_MAKERS = (torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.eye)


@dataclass(frozen=True, eq=False)
class Traced:
    """Result of tracing a model.

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
    """NodePathTracer that also keeps the result of every call of every module.

    The model is called as by its user, by `__call__` with only the inputs: hooks on the root and a
    replaced forward run, and other arguments keep their defaults.
    """

    def __init__(self, leaves: Sequence[type[nn.Module]] = (), inputs: Sequence[str] = ()) -> None:
        super().__init__(
            leaf_modules=[*_op_leaves(), *_timm_leaves(), jit.ScriptModule, *leaves],
            autowrap_modules=(math, torchvision.ops),
            autowrap_functions=(*_timm_functions(), *_EINOPS, *_MAKERS),
        )
        self._autowrap_search += [torch, einops]
        self.inputs = inputs
        self.outputs: dict[str, list[Any]] = defaultdict(list)
        self.failed_in: str | None = None
        self._latest: dict[str, str] = {}

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """Placeholders for the inputs, and the call of the whole model instead of its forward."""

        def call(root: nn.Module, *args: Any) -> Any:
            return root(*args)

        return call, [self.root, *map(self._placeholder, range(len(self.inputs)))]

    def trace_on(self, model: nn.Module, sample: Sequence[Tensor]) -> fx.Graph:
        """The graph of `model`; the values in `sample` are not used here."""
        graph: fx.Graph = self.trace(model)
        return graph

    def _placeholder(self, index: int) -> fx.Proxy:
        made: fx.Proxy = self.create_proxy("placeholder", self.inputs[index], (), {})
        return made

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        """Whether a module is kept whole; the root never is."""
        if m is self.root:
            return False
        of_einops = type(m).__module__.startswith("einops.layers")
        return of_einops or super().is_leaf_module(m, module_qualname)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace a call of a module, or record it whole, and keep its result."""
        path = self.path_of_module(m)
        try:
            result = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed_in = self.failed_in or path
            raise
        if m is not self.root:
            self.outputs[path].append(fx.node.map_aggregate(result, _node_of))
        return result

    def create_arg(self, a: Any) -> Any:
        """An argument of a node; numpy's scalars become Python's, which code can spell."""
        return super().create_arg(a.item() if isinstance(a, np.generic) else a)

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


def trace(
    model: nn.Module,
    sample: Sequence[Tensor],
    leaves: Sequence[type[nn.Module]] = (),
    tracer_class: type[PathTracer] = PathTracer,
) -> Traced:
    """Trace `model` called with the inputs in `sample`, other arguments at their defaults.

    Raises:
        CutError: FX cannot trace it; the text names the module, the line and what to do.
    """
    tracer = tracer_class(leaves, input_names(model, len(sample)))
    try:
        with _as_it_was(model), _in_python(model):
            graph = tracer.trace_on(model, sample)
    except Exception as error:
        raise CutError(_why(model, tracer, error)) from error
    for node in graph.nodes:
        if node.target in _MAKERS:  # else generated code would wrap a name that it does not have
            node.meta.pop("is_wrapped", None)
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


def input_names(model: nn.Module, num_inputs: int) -> list[str]:
    """Names of the first arguments of `forward`; checks that they are all it needs."""
    arguments = list(inspect.signature(model.forward).parameters.values())
    places = [a for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    names = [argument.name for argument in places[:num_inputs]]
    for argument in arguments:
        if argument.kind is argument.VAR_POSITIONAL:
            names += [f"{argument.name}_{index}" for index in range(num_inputs - len(names))]
    needed = [a for a in places[num_inputs:] if a.default is a.empty]
    needed += [a for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is a.empty]
    if len(names) < num_inputs or needed:
        takes = ", ".join(str(argument).partition(":")[0] for argument in arguments)
        required = sum(argument.default is argument.empty for argument in places)
        raise CutError(
            f"{type(model).__name__}.forward takes ({takes}), {required} of them required, but the "
            f"sample holds {num_inputs}. Give sample as a tuple in forward's order; an argument "
            "that is not a tensor needs a default, or a wrapper that sets it."
        )
    return names


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo attributes that forward sets on its modules, which are proxies while tracing."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            constants = {k: v for k, v in vars(module).items() if k.startswith("_tensor_constant")}
            vars(module).clear()
            vars(module).update(constants | attributes)


@contextmanager
def _in_python(model: nn.Module) -> Iterator[None]:
    """Run scripted functions of a forward as the Python that they were made from."""
    spaces = {id(space): space for m in model.modules() if (space := _globals_of(m))}
    scripted = [
        (space, name, value)
        for space in spaces.values()
        for name, value in space.items()
        if isinstance(value, jit.ScriptFunction) and hasattr(value, "_torchdynamo_inline")
    ]
    try:
        for space, name, value in scripted:
            space[name] = value._torchdynamo_inline
        yield
    finally:
        for space, name, value in scripted:
            space[name] = value


def _globals_of(module: nn.Module) -> dict[str, Any]:
    return getattr(module.forward, "__globals__", {})


def _why(model: nn.Module, tracer: PathTracer, error: Exception) -> str:
    if isinstance(error, CutError):
        return str(error)
    path = tracer.failed_in
    module = model.get_submodule(path) if path else model
    name = type(module).__name__
    cure = (
        f"keep that module whole with cut(..., leaves=[{name}]), and cut outside it."
        if path
        else "move it into a module of its own that `leaves` keeps whole, and cut outside it."
    )
    return (
        f"FX cannot trace {f'{path} ({name})' if path else f'{name}.forward'}, at "
        f"{_line_of(error)}: {type(error).__name__}: {str(error).rstrip('.')}. "
        "A cut needs an order of operations that is the same for all inputs: remove Python "
        f"control flow that depends on a tensor's values there, or {cure}"
    )


def _line_of(error: Exception) -> str:
    """The innermost line of the model in an error's trace, with its text."""
    return line_in_model(traceback.extract_tb(error.__traceback__))


def line_in_model(frames: Sequence[traceback.FrameSummary]) -> str:
    """The innermost line outside torch itself and this package's tracers, with its text."""
    inside = (str(torch.__path__[0]) + os.sep, str(Path(__file__).parent) + os.sep)
    theirs = inspect.getfile(NodePathTracer)
    own = [f for f in frames if not f.filename.startswith(inside) and f.filename != theirs]
    frame = (own or frames)[-1]
    return f"{frame.filename}:{frame.lineno} `{frame.line}`"
