"""The fingerprint of a backbone: a digest of everything that decides what it answers.

That is the order of operations, every parameter, buffer and plain tensor, and for each module that
the graph calls whole its class and settings. Names of torch's own private attributes, addresses,
devices and the spelling of generated code stay out, so that one model gives one digest in every
process and, as far as its classes keep their settings, in every release of torch. The code of a
user's own class that is kept whole is known by the class's name alone.
"""

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, jit, nn

from offramp.backbones.sized import check_size
from offramp.backbones.values import flat_tensors

_KNOWN = ("torch", "torchvision", "timm")
_NOT_SETTINGS = frozenset({*vars(nn.Module()), "inplace", "device"})
"""What decides no value: the machinery of a module, where it writes, and where it lies."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a digest is computed from, whatever happens to the graph afterwards.

    Attributes:
        root: The module whose attributes the graph names.
        code: The order of operations.
        leaves: Paths of the modules that the graph calls whole.
        constants: Paths of the tensors that it reads.
    """

    root: nn.Module
    code: str
    leaves: tuple[str, ...]
    constants: tuple[str, ...]

    @classmethod
    def of(cls, root: nn.Module, graph: fx.Graph) -> "Fingerprint":
        """Of a graph as it was traced, before any cut."""
        paths = {
            op: tuple(dict.fromkeys(str(n.target) for n in graph.nodes if n.op == op))
            for op in ("call_module", "get_attr")
        }
        return cls(root, _code(graph), paths["call_module"], paths["get_attr"])

    def digest(self) -> str:
        """SHA-256 over all of it as it is now."""
        hasher = hashlib.sha256(self.code.encode())
        tensors: dict[str, Tensor] = dict(self.root.named_parameters())
        tensors |= dict(self.root.named_buffers())
        for path in self.constants:
            tensors.setdefault(path, attrgetter(path)(self.root))
        for path in self.leaves:
            for name, module in attrgetter(path)(self.root).named_modules(prefix=path):
                hasher.update(f"{name} {'; '.join(_settings(module))}\n".encode())
                tensors |= _held(name, module)
        for name, tensor in sorted(tensors.items()):
            hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            for part in _plain(tensor):
                hasher.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return hasher.hexdigest()


def _code(graph: fx.Graph) -> str:
    """One line per node, which names others by their number."""
    nodes = [node for node in graph.nodes if node.target is not check_size]
    numbers = {node: f"%{index}" for index, node in enumerate(nodes)}
    return "\n".join(
        f"{node.op} {_spelled(node.target, {})} {_spelled(node.args, numbers)} "
        f"{_spelled(node.kwargs, numbers)}"
        for node in nodes
    )


def _settings(module: nn.Module) -> Iterator[str]:
    """Class, public attributes and hooks; private ones too where the class is a user's own."""
    own = type(module).__module__.partition(".")[0] not in _KNOWN
    yield _name_of(type(module))
    if isinstance(module, jit.ScriptModule):
        yield module.code
        return
    for key, value in sorted(vars(module).items()):
        if key not in _NOT_SETTINGS and (own or not key.startswith("_")):
            yield f"{key}={_spelled(value, {})}"
    for kind in ("_forward_pre_hooks", "_forward_hooks"):
        for hook in getattr(module, kind).values():
            yield f"{kind} {_spelled(hook, {})}"


def _held(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Tensors that are neither parameters nor buffers: plain, in lists, or packed (int8 layers)."""
    if isinstance(module, jit.ScriptModule):
        return {}
    packed = {key: value for key, value in _state_of(module).items() if isinstance(value, tuple)}
    return {
        f"{name}.{key}#{index}": tensor
        for key, value in {**vars(module), **packed}.items()
        if key not in _NOT_SETTINGS
        for index, tensor in enumerate(flat_tensors(value))
    }


def _state_of(module: nn.Module) -> Mapping[str, Any]:
    state: dict[str, Any] = {}
    module._save_to_state_dict(state, "", keep_vars=True)
    return state


def _plain(tensor: Tensor) -> tuple[Tensor, ...]:
    """Tensors of plain numbers that say what this one holds."""
    tensor = tensor.detach()
    if not tensor.is_quantized:
        return (torch.view_as_real(tensor) if tensor.is_complex() else tensor.to_dense(),)
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scales = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return (tensor.int_repr(), scales)
    zeros = tensor.q_per_channel_zero_points()
    return (tensor.int_repr(), tensor.q_per_channel_scales(), zeros)


def _spelled(value: Any, numbers: Mapping[fx.Node, str]) -> str:
    """A value in words that are the same in every process."""
    spell = functools.partial(_spelled, numbers=numbers)
    if isinstance(value, fx.Node):
        return numbers[value]
    if isinstance(value, np.generic):
        return spell(value.item())
    if isinstance(value, bool | int | float | complex | str | bytes | None):
        return repr(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {spell(each)}' for key, each in value.items())}}}"
    if isinstance(value, tuple | list | set | frozenset):
        words = map(spell, value)
        return f"({', '.join(words if isinstance(value, tuple | list) else sorted(words))})"
    if isinstance(value, slice):
        return f"slice{spell((value.start, value.stop, value.step))}"
    return _spelled_object(value)


def _spelled_object(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    if isinstance(value, torch.device):
        return value.type
    if isinstance(value, functools.partial):
        return f"partial{_spelled((value.func, value.args, value.keywords), {})}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return f"{type(value).__name__}{_spelled(fields, {})}"
    return _name_of(value if hasattr(value, "__name__") else type(value))


def _name_of(made: Any) -> str:
    """A class or function by its name, and by its library where that is a known one."""
    top = str(getattr(made, "__module__", None) or "").partition(".")[0]
    name = getattr(made, "__qualname__", made.__name__)
    return f"{top}.{name}" if top in _KNOWN else name
