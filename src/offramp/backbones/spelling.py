"""Values as text that is the same in every process, for the fingerprint.

A user's function is spelled by its code and by everything that it closes over or reads as a global
variable, a user's object by its class and attributes, an array or tensor by its bytes. Functions
and classes of known libraries, and all classes, are known by their names: their code changes with
releases that answer the same.
"""

import collections
import dataclasses
import dis
import enum
import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, jit, nn

from offramp.backbones.frozen import Shared
from offramp.backbones.rebinding import Rebound, cells_of

_KNOWN = ("torch", "torchvision", "timm")
_BY_NAME = frozenset({*_KNOWN, "offramp", "numpy", *sys.stdlib_module_names} - {"__main__"})
_LOCKS = (type(threading.Lock()), type(threading.RLock()))
NOT_SETTINGS = frozenset({*vars(nn.Module()), "inplace", "device"})
"""Attributes that do not affect results: internals of modules, devices, addresses."""


def plain_tensors(tensor: Tensor) -> tuple[Tensor, ...]:
    """Tensors of plain numbers that say what this one holds."""
    tensor = tensor.detach()
    if not tensor.is_quantized:
        return (torch.view_as_real(tensor) if tensor.is_complex() else tensor.to_dense(),)
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scales = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return (tensor.int_repr(), scales)
    zeros = tensor.q_per_channel_zero_points()
    return (tensor.int_repr(), tensor.q_per_channel_scales(), zeros)


def bytes_of(tensor: Tensor) -> list[memoryview]:
    """The bytes of a tensor on any device."""
    return [
        part.cpu().contiguous().flatten().view(torch.uint8).numpy().data
        for part in plain_tensors(tensor)
    ]


class Speller:
    """Writes values as text; a value inside itself is written as its distance upwards.

    Args:
        numbers: Text of each node of a graph.
        paths: Modules of the model by id, whose weights are in the fingerprint already.
    """

    def __init__(
        self,
        numbers: Mapping[fx.Node, str] | None = None,
        paths: Mapping[int, str] | None = None,
    ) -> None:
        self._numbers = numbers or {}
        self._paths = paths or {}
        self._above: list[int] = []
        self._known: dict[int, str] = {}

    def spell(self, value: Any) -> str:
        """A value as text."""
        if isinstance(value, fx.Node):
            return self._numbers[value]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool | int | float | complex | str | bytes | range | None):
            return repr(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format | np.dtype):
            return str(value)
        return _by_name(value) or self._followed(value)

    def _followed(self, value: Any) -> str:
        key = id(value)
        if key in self._known:
            return self._known[key]
        if key in self._above:
            return f"above {len(self._above) - self._above.index(key)}"
        self._above.append(key)
        words = self._parts(value)
        self._above.pop()
        if isinstance(value, FunctionType | Tensor):  # these live on, so that ids stay theirs
            self._known[key] = words
        return words

    def _parts(self, value: Any) -> str:
        for kinds, spell in _SPELLED_BY:
            if isinstance(value, kinds):
                return spell(self, value)
        return self._object(value)

    def settings(self, module: nn.Module) -> str:
        """Class, public attributes and hooks; private ones too where the class is a user's own."""
        if isinstance(module, jit.ScriptModule):
            return f"{name_of(type(module))}; {module.code}"
        words = [name_of(type(module)), *self._attributes(vars(module), type(module))]
        for kind in ("_forward_pre_hooks", "_forward_hooks"):
            words += [f"{kind} {self.spell(hook)}" for hook in getattr(module, kind).values()]
        return "; ".join(words)

    def _attributes(self, held: Mapping[str, Any], cls: type) -> list[str]:
        known = _top(cls) in _KNOWN
        return [
            f"{key}={self.spell(value)}"
            for key, value in sorted(held.items())
            if key not in NOT_SETTINGS and not (known and key.startswith("_"))
            if not _is_lock(value)
        ]

    def _mapping(self, value: Mapping[Any, Any]) -> str:
        items = (f"{self.spell(key)}: {self.spell(each)}" for key, each in value.items())
        return f"{{{', '.join(items)}}}"

    def _sequence(self, value: Any) -> str:
        return f"({', '.join(map(self.spell, value))})"

    def _set(self, value: Any) -> str:
        return f"({', '.join(sorted(map(self.spell, value)))})"

    def _slice(self, value: slice) -> str:
        return f"slice{self.spell((value.start, value.stop, value.step))}"

    def _partial(self, value: Any) -> str:
        return f"partial{self.spell((value.func, value.args, value.keywords))}"

    def _array(self, value: Any) -> str:
        held = self.spell(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
        return f"array {value.dtype} {value.shape} {_sha(held)}"

    def _tensor(self, value: Tensor) -> str:
        return f"tensor {value.dtype} {tuple(value.shape)} {_sha(*bytes_of(value))}"

    def _method(self, value: MethodType) -> str:
        return f"method{self.spell((value.__func__, value.__self__))}"

    def _rebound(self, value: Rebound) -> str:
        return self.spell(value.function)

    def _shared(self, value: Shared) -> str:
        return self.spell(value.held)

    def _module(self, value: nn.Module) -> str:
        """One that a function or object holds, with its weights unless it is the model's."""
        if id(value) in self._paths:
            return f"module {self._paths[id(value)]!r} {self.settings(value)}"
        parts = [f"{name} {self.settings(part)}" for name, part in value.named_modules()]
        tensors = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        return _sha("\n".join(parts), self.spell(tensors))

    def _function(self, value: FunctionType) -> str:
        globals_read = {
            name: value.__globals__[name]
            for name in sorted(_globals_in(value.__code__))
            if name in value.__globals__
        }
        held = (value.__defaults__, value.__kwdefaults__, cells_of(value), globals_read)
        return f"{name_of(value)} {_sha(self._code(value.__code__), self.spell(held))}"

    def _code(self, code: CodeType) -> str:
        constants = [
            self._code(each) if isinstance(each, CodeType) else self.spell(each)
            for each in code.co_consts
        ]
        return f"{code.co_code.hex()} {constants} {code.co_names}"

    def _object(self, value: Any) -> str:
        """By its class and attributes; by the class alone where those are not plain to see."""
        cls = type(value)
        if dataclasses.is_dataclass(value):
            held = {
                each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)
            }
        elif isinstance(value, SimpleNamespace) or _top(cls) in _KNOWN or _top(cls) not in _BY_NAME:
            held = getattr(value, "__dict__", {})
        else:
            held = {}
        return f"{name_of(cls)}{self._attributes(held, cls)}"


_SPELLED_BY: tuple[tuple[Any, Callable[[Speller, Any], str]], ...] = (
    (Rebound, Speller._rebound),
    (Shared, Speller._shared),
    (Mapping, Speller._mapping),
    (tuple | list | collections.deque, Speller._sequence),
    (set | frozenset, Speller._set),
    (slice, Speller._slice),
    (functools.partial, Speller._partial),
    (np.ndarray, Speller._array),
    (Tensor, Speller._tensor),
    (MethodType, Speller._method),
    (nn.Module, Speller._module),
    (FunctionType, Speller._function),
)


def _by_name(value: Any) -> str | None:
    """What a name says all about; None for anything else."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, FunctionType):
        library = str(value.__globals__.get("__name__", "")).partition(".")[0]
        return name_of(value) if library in _BY_NAME else None
    followed = isinstance(value, MethodType | Rebound | functools.partial)
    named = isinstance(value, type) or _top(type(value)) in _BY_NAME
    return name_of(value) if named and not followed and hasattr(value, "__name__") else None


def name_of(made: Any) -> str:
    """A class or function by its name, and by its library where that is a known one."""
    name = str(getattr(made, "__qualname__", made.__name__))
    return f"{_top(made)}.{name}" if _top(made) in _KNOWN else name


def _is_lock(value: Any) -> bool:
    return isinstance(value.held if isinstance(value, Shared) else value, _LOCKS)


def _top(made: Any) -> str:
    return str(getattr(made, "__module__", None) or "").partition(".")[0]


def _globals_in(code: CodeType) -> set[str]:
    """Names of the global variables that code reads, that of inner functions included."""
    found = {str(op.argval) for op in dis.get_instructions(code) if op.opname == "LOAD_GLOBAL"}
    inner = (_globals_in(each) for each in code.co_consts if isinstance(each, CodeType))
    return found.union(*inner)


def _sha(*parts: str | bytes | memoryview) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part.encode() if isinstance(part, str) else part)
    return hasher.hexdigest()
