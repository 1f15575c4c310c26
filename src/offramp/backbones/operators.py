"""Operators that change their left operand, which FX alone would trace as if they did not."""

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import fx

OUT_OF_PLACE: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {
        operator.iadd: operator.add,
        operator.isub: operator.sub,
        operator.imul: operator.mul,
        operator.itruediv: operator.truediv,
        operator.ifloordiv: operator.floordiv,
        operator.imod: operator.mod,
        operator.ipow: operator.pow,
        operator.iand: operator.and_,
        operator.ior: operator.or_,
        operator.ixor: operator.xor,
    }
)
"""For each such operator, the one that returns a new tensor."""


class ChangingProxy(fx.Proxy):
    """A proxy that records `x += y` and `x[i] = y` as changes in place.

    FX makes `x = x + y` of the first, which is another program where `x` has a second name, and
    slower; the second it refuses. Nodes of `+=` still get the name that FX gives: `add`.
    """

    def _change(self, change: Callable[..., Any], other: Any) -> fx.Proxy:
        name = OUT_OF_PLACE[change].__name__
        return self.tracer.create_proxy("call_function", change, (self, other), {}, name=name)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._change(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._change(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._change(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._change(operator.itruediv, other)

    def __ifloordiv__(self, other: Any) -> fx.Proxy:
        return self._change(operator.ifloordiv, other)

    def __imod__(self, other: Any) -> fx.Proxy:
        return self._change(operator.imod, other)

    def __ipow__(self, other: Any) -> fx.Proxy:
        return self._change(operator.ipow, other)

    def __iand__(self, other: Any) -> fx.Proxy:
        return self._change(operator.iand, other)

    def __ior__(self, other: Any) -> fx.Proxy:
        return self._change(operator.ior, other)

    def __ixor__(self, other: Any) -> fx.Proxy:
        return self._change(operator.ixor, other)
