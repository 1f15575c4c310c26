"""The fingerprint of a backbone: a digest of everything that decides what it answers.

That is the order of operations, every parameter, buffer and plain tensor, and for each module that
the graph calls whole its class and settings. Names of torch's own private attributes, addresses,
devices and the spelling of generated code stay out, so that one model gives one digest in every
process and, as far as its classes keep their settings, in every release of torch. Functions and
objects that leaves and hooks hold are known by their code and contents (see `spelling`); the code
of a user's own class that is kept whole, by the class's name alone.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, jit, nn

from offramp.backbones.sized import check_size
from offramp.backbones.spelling import NOT_SETTINGS, Speller, bytes_of
from offramp.backbones.values import flat_tensors


@dataclasses.dataclass(frozen=True, eq=False)
class Fingerprint:
    """The content of a digest, which does not change with the graph afterwards.

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
        """Fingerprint of a graph as it was traced, before any cut."""
        paths = {
            op: tuple(dict.fromkeys(str(n.target) for n in graph.nodes if n.op == op))
            for op in ("call_module", "get_attr")
        }
        return cls(root, _code(graph), paths["call_module"], paths["get_attr"])

    def digest(self) -> str:
        """SHA-256 over the current content."""
        hasher = hashlib.sha256(self.code.encode())
        tensors: dict[str, Tensor] = dict(self.root.named_parameters())
        tensors |= dict(self.root.named_buffers())
        for path in self.constants:
            tensors.setdefault(path, attrgetter(path)(self.root))
        speller = Speller(paths={id(each): name for name, each in self.root.named_modules()})
        for path in self.leaves:
            for name, module in attrgetter(path)(self.root).named_modules(prefix=path):
                hasher.update(f"{name} {speller.settings(module)}\n".encode())
                tensors |= _held(name, module)
        for name, tensor in sorted(tensors.items()):
            hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            for part in bytes_of(tensor):
                hasher.update(part)
        return hasher.hexdigest()


def _code(graph: fx.Graph) -> str:
    """One line per node; nodes are referred to by number."""
    nodes = [node for node in graph.nodes if node.target is not check_size]
    numbers = {node: f"%{index}" for index, node in enumerate(nodes)}
    spell = Speller(numbers).spell
    return "\n".join(
        f"{node.op} {spell(node.target)} {spell(node.args)} {spell(node.kwargs)}" for node in nodes
    )


def _held(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Tensors that are neither parameters nor buffers: plain, in lists, or packed (int8 layers)."""
    if isinstance(module, jit.ScriptModule):
        return {}
    packed = {key: value for key, value in _state_of(module).items() if isinstance(value, tuple)}
    return {
        f"{name}.{key}#{index}": tensor
        for key, value in {**vars(module), **packed}.items()
        if key not in NOT_SETTINGS
        for index, tensor in enumerate(flat_tensors(value))
    }


def _state_of(module: nn.Module) -> Mapping[str, Any]:
    state: dict[str, Any] = {}
    module._save_to_state_dict(state, "", keep_vars=True)
    return state
