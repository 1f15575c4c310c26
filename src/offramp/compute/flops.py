"""Counts the FLOPs of a torch module by watching its operators on tensors without values."""

from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from typing import Any, Self, get_args

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from offramp.compute.formulas import ATTENTION, BIASES, PRODUCTS, PROFILED
from offramp.compute.rehearsal import rehearse
from offramp.cost import Convention
from offramp.errors import PlanError


class FlopCounter:
    """Adds up the FLOPs of every operator that runs inside `with FlopCounter() as counter`.

    It counts functions, methods and modules, and a module as often as it is called, on real and on
    fake tensors, without reading their values. It is made for forward passes.

    Attributes:
        total: FLOPs so far; may be read at any time.
    """

    def __init__(self, convention: Convention = "2mac") -> None:
        self.total = 0
        self._paper = _known(convention) == "paper"
        self._formulas = (PRODUCTS, BIASES, PROFILED) if self._paper else (PRODUCTS, ATTENTION)
        self._hidden = 0
        self._resources = ExitStack()
        self._interceptor = _Interceptor(self)

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            if self._paper:
                hooks = (
                    register_module_forward_pre_hook(self._enter_module),
                    register_module_forward_hook(self._leave_module, always_call=True),
                )
                for hook in hooks:
                    resources.callback(hook.remove)
            resources.enter_context(self._interceptor)
            self._resources = resources.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def knows(self, operator: str) -> bool:
        """Whether a formula counts this operator, such as `aten.conv2d`, as a whole."""
        return any(operator in formulas for formulas in self._formulas)

    def add(self, operator: str, args: tuple[Any, ...], out: Any) -> None:
        """Count one operator."""
        counted = (PROFILED,) if self._hidden else self._formulas
        self.total += sum(known[operator](args, out) for known in counted if operator in known)

    def _enter_module(self, module: nn.Module, args: object) -> None:
        self._hidden += _einsum_in_keras(module)

    def _leave_module(self, module: nn.Module, args: object, out: object) -> None:
        self._hidden -= _einsum_in_keras(module)


def _einsum_in_keras(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or getattr(module, "einsum_in_keras", False)


def _known(convention: str) -> str:
    if convention not in get_args(Convention):
        near = get_close_matches(convention, get_args(Convention), n=1, cutoff=0.3)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise PlanError(
            f"the FLOPs convention must be one of {', '.join(get_args(Convention))}, "
            f"not {convention!r}{hint}"
        )
    return convention


class _Interceptor(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Passes every operator to a FlopCounter; decomposes those that no formula knows."""

    def __init__(self, counter: FlopCounter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        operator, kwargs = str(func.overloadpacket), kwargs or {}
        if not self.counter.knows(operator) and operator.startswith("aten."):
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self.counter.add(operator, args, out)
        return out


def count_flops(module: nn.Module, inputs: tuple[Any, ...], convention: Convention = "2mac") -> int:
    """FLOPs of `module(*inputs)` in evaluation mode.

    The module is not changed: a copy runs on tensors without values, or on zeros if the module
    needs values. Inputs may be on any device, and may be nested tuples of tensors, as for a stage.
    Use batch 1 for the cost of one sample.

    `2mac` is twice the multiply-adds of convolutions, dense layers, matrix products and attention.
    `paper` is the TensorFlow profiler's count on a Keras graph (section 4.4): these without an
    attention layer's projections and products, plus biases, pooling windows, multiplications
    element by element, and 5 per element of a softmax.

    Raises:
        PlanError: The convention is unknown.
    """
    return rehearse(module, inputs, partial(_count, convention=convention))


def _count(twin: nn.Module, inputs: tuple[Any, ...], convention: Convention) -> int:
    with FlopCounter(convention) as counter:
        twin(*inputs)
    return counter.total
