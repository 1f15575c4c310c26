"""Tracing with the sample's values, for a forward that depends on sizes.

FX alone cannot follow `if h > 7`, `int(h * 1.5)` or `view(*x.shape[:2], -1)`. Here every node
also runs on the sample, so that a proxy knows the answer. Each decision by a size is checked by a
node whenever the stages run: inputs of a size that would decide differently are refused, never
answered wrongly. Decisions by the values of a tensor are still refused.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn

from offramp.backbones.operators import ChangingProxy
from offramp.backbones.tracing import PathTracer, line_in_model
from offramp.backbones.values import as_written, flat_tensors
from offramp.errors import ShapeError

_OF_SHAPE = frozenset(
    {"size", "dim", "ndimension", "numel", "stride", "is_contiguous", "get_device"}
)
"""Methods of a tensor that say nothing about its values."""


def check_size(found: object, expected: object, where: str) -> None:
    """Refuse inputs for which the model would have taken another path than the traced one.

    Raises:
        ShapeError: A decision by size differs from that on the sample.
    """
    if found != expected:
        raise ShapeError(
            f"The control flow of the backbone depends on a size at {where}: the sample that it "
            f"was cut with gave {expected} there, but these inputs give {found}. Use inputs of the "
            "sample's size, or cut again with a sample of the new size. If it depends on the batch "
            "size, remove that from the model."
        )


class SizedProxy(ChangingProxy):
    """A proxy that holds its value on the sample, and answers Python's questions about sizes.

    Attributes:
        held: The value on the sample.
        by_values: Whether the value depends on what tensors hold, not on their sizes alone.
    """

    held: Any = None
    by_values: bool = False

    def __getattr__(self, name: str) -> Any:
        if callable(getattr(self.held, name, None)):
            return super().__getattr__(name)  # a method; its call becomes one node
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def _decide(self, value: Any) -> Any:
        """The value, once a node is recorded that checks it."""
        if self.by_values or isinstance(self.held, Tensor):
            raise fx.proxy.TraceError("control flow depends on the values of a tensor here")
        where = line_in_model(traceback.extract_stack())
        self.tracer.create_node("call_function", check_size, (self.node, value, where), {})
        return value

    def __bool__(self) -> bool:
        if isinstance(self.held, bool):
            return bool(self._decide(self.held))
        return bool(
            self.tracer.create_proxy("call_function", bool, (self,), {})._decide(bool(self.held))
        )

    def __index__(self) -> int:
        return int(self._decide(self.held.__index__()))

    def __int__(self) -> int:
        return int(self._decided_by(int))

    def __float__(self) -> float:
        return float(self._decided_by(float))

    def __len__(self) -> int:
        if not isinstance(self.held, Tensor):
            return len(self.held)  # as many axes or pieces as the code has, whatever their sizes
        return int(self._decided_by(len))

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))  # type: ignore[index]  # set on Proxy by FX

    def __contains__(self, item: object) -> bool:
        return any(bool(each == item) for each in self)

    def _decided_by(self, convert: Callable[[Any], Any]) -> Any:
        """What Python's own conversion gives, recorded as a node and checked."""
        if isinstance(self.held, Tensor) and convert is not len:
            return self._decide(None)
        made = self.tracer.create_proxy("call_function", convert, (self,), {})
        return made._decide(made.held)


class SizedTracer(PathTracer):
    """A PathTracer that runs each node on the sample as it records it."""

    def trace_on(self, model: nn.Module, sample: Sequence[Tensor]) -> fx.Graph:
        """The graph of `model`, with its decisions by size as on `sample`."""
        self._sample = [tensor.clone() for tensor in sample]
        self._running = False
        return super().trace_on(model, sample)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A stand-in that will hold the node's value."""
        return SizedProxy(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any
    ) -> Any:
        """Record a node and run it."""
        made = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        held = _proxies((args, kwargs))
        values, named = fx.node.map_aggregate((args, kwargs), _held)
        made.__dict__["by_values"] = _tells_values(kind, target, held)
        made.__dict__["held"] = self._run(kind, target, as_written(values), as_written(named))
        return made

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Trace a call of a module, or let it run where a node is being run."""
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter as a proxy, or as itself where a node is being run."""
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _run(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kind == "placeholder":
            return self._sample[self.inputs.index(target)]
        self._running = True
        try:
            if kind == "call_function":
                return target(*args, **kwargs)
            if kind == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            found = attrgetter(target)(self.root)
            return found if kind == "get_attr" else found(*args, **kwargs)
        finally:
            self._running = False


def _proxies(value: Any) -> list[SizedProxy]:
    found: list[Any] = []
    fx.node.map_aggregate(value, found.append)
    return [each for each in found if isinstance(each, SizedProxy)]


def _held(value: Any) -> Any:
    return value.held if isinstance(value, SizedProxy) else value


def _tells_values(kind: str, target: Any, read: Sequence[SizedProxy]) -> bool:
    """Whether a node's plain result depends on the values of tensors."""
    if target is getattr or target is len or (kind == "call_method" and target in _OF_SHAPE):
        return any(proxy.by_values for proxy in read if not isinstance(proxy.held, Tensor))
    return any(proxy.by_values or flat_tensors(proxy.held) for proxy in read)
