"""Values of the nodes of a graph, from one run on a sample."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from offramp.errors import CutError

Kind = Literal["tensor", "pack", "plain", "weight"]
"""A tensor; a nest that holds tensors; anything else (sizes, None); a parameter or buffer."""


@dataclass(frozen=True, eq=False)
class Value:
    """Value of a node.

    Attributes:
        kind: What sort of value it is.
        shape: Of a tensor, batch included; otherwise empty.
        dtype: Of a tensor; otherwise None.
        num_bytes: Size of a tensor's elements.
        storages: Numbers of the memory blocks that its tensors lie in.
        written: Numbers of the memory blocks that running the node changed.
        same_as: The first node that gave this very tensor (same memory and strides, unchanged),
            else the node itself.
        replaces: Where the node changed a tensor and returned it: the first node that gave it.
        length: Number of items of a flat tuple or list of tensors.
        about: The value in a few words, for error messages.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    num_bytes: int
    storages: frozenset[int]
    written: frozenset[int]
    same_as: fx.Node
    replaces: fx.Node | None
    length: int | None
    about: str


def observe(root: nn.Module, graph: fx.Graph, sample: tuple[Tensor, ...]) -> dict[fx.Node, Value]:
    """Run `graph` once on copies of `sample`; what every node gave and changed.

    Raises:
        CutError: The run fails, or the model changes a buffer of its own in evaluation mode.
    """
    versions = {name: _version(buffer) for name, buffer in root.named_buffers()}
    observer = _Observer(root, graph)
    try:
        observer.run(*(tensor.clone() for tensor in sample))
    except Exception as error:
        raise does_not_run(sample, error) from error
    for name, buffer in root.named_buffers():
        if versions[name] != _version(buffer):
            raise CutError(
                f"The model changes its buffer {name!r} in evaluation mode, so its answers depend "
                "on earlier calls, and frozen stages cannot reproduce them. Keep that state "
                "outside the model."
            )
    return observer.values


def does_not_run(sample: tuple[Tensor, ...], error: Exception) -> CutError:
    """The error for a model that fails on the sample."""
    shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in sample)
    first = str(error).strip().partition("\n")[0]
    return CutError(
        f"The model does not run on the sample ({shapes}): {first.rstrip('.')}. The sample is what "
        "forward gets, batch axis included: check its size, channels, type and device. (Verbs add "
        "the batch axis to sizes: `--input 1x96x40` is one channel of 96 x 40.)"
    )


def flat_tensors(value: Any) -> list[Tensor]:
    """All tensors in a nest of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for item in value for tensor in flat_tensors(item)]


def as_written(value: Any) -> Any:
    """Arguments whose lists a function may change, instead of FX's frozen ones."""
    if isinstance(value, list):
        return [as_written(item) for item in value]
    if isinstance(value, dict):
        return {key: as_written(item) for key, item in value.items()}
    return tuple(map(as_written, value)) if type(value) is tuple else value


class Interpreter(fx.Interpreter):
    """FX's interpreter, with arguments as the generated code gives them."""

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The node's arguments, with lists that may be changed."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return as_written(args), as_written(kwargs)


class _Observer(Interpreter):
    """Interpreter that compares version counters before and after each node.

    Memory blocks are numbered, since addresses are used again when memory is freed. A result's
    block is known when it is one of the node's inputs' or the model's own; otherwise it is new.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph=graph)
        self.values: dict[fx.Node, Value] = {}
        self._count = 0
        self._blocks: dict[fx.Node, dict[int, int]] = {}
        self._own = self._number([*root.parameters(), *root.buffers()], {})

    def run_node(self, n: fx.Node) -> Any:
        # Torch counts the changes of a tensor's memory, for all views of it alike: a count that
        # moved while a node ran means that the node wrote there, whichever name it did so by. Only
        # what the node was given is looked at; a module that writes to its own buffer instead is
        # found by observe.
        read = [t for node in n.all_input_nodes for t in flat_tensors(self.env[node])]
        versions = [_version(tensor) for tensor in read]
        result = super().run_node(n)
        if n.op == "output":
            return result
        known = dict(self._own)
        for node in n.all_input_nodes:
            known.update(self._blocks[node])
        written = frozenset(
            known[_address(tensor)]
            for tensor, version in zip(read, versions, strict=True)
            if _version(tensor) != version
        )
        self._blocks[n] = self._number(flat_tensors(result), known)
        self.values[n] = self._value(n, result, written)
        return result

    def _number(self, tensors: Iterable[Tensor], known: dict[int, int]) -> dict[int, int]:
        numbers: dict[int, int] = {}
        for tensor in tensors:
            address = _address(tensor)
            if address not in numbers:
                self._count += 1
                numbers[address] = known.get(address, self._count)
        return numbers

    def _value(self, node: fx.Node, result: Any, written: frozenset[int]) -> Value:
        # A node that gave back a tensor it was given, same memory and layout, names one tensor
        # twice (same_as), unless it changed it meanwhile: then it is another value in the same
        # place, and later readers of the old name read the new value (replaces).
        tensor = result if isinstance(result, Tensor) else None
        first = self._first_holder(node, tensor)
        blocks = frozenset(self._blocks[node].values())
        changed = first if first is not node and blocks & written else None
        return Value(
            kind=_kind(node, result),
            shape=() if tensor is None else tuple(tensor.shape),
            dtype=None if tensor is None else tensor.dtype,
            num_bytes=0 if tensor is None else tensor.numel() * tensor.element_size(),
            storages=blocks,
            written=written,
            same_as=node if changed is not None else first,
            replaces=changed,
            length=_length(result),
            about=f"a {type(result).__name__}",
        )

    def _first_holder(self, node: fx.Node, tensor: Tensor | None) -> fx.Node:
        if tensor is not None:
            for earlier in node.all_input_nodes:
                given = self.env[earlier]
                if isinstance(given, Tensor) and _layout(given) == _layout(tensor):
                    return self.values[earlier].same_as
        return node


def _kind(node: fx.Node, result: Any) -> Kind:
    if node.op == "get_attr":
        return "weight"
    if isinstance(result, Tensor):
        return "tensor"
    return "pack" if flat_tensors(result) else "plain"


def _length(result: Any) -> int | None:
    if isinstance(result, tuple | list) and all(isinstance(item, Tensor) for item in result):
        return len(result)
    return None


def _version(tensor: Tensor) -> int:
    """How often the tensor was changed; a weight made in inference mode does not count."""
    return -1 if tensor.is_inference() else tensor._version


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return (
        _address(tensor),
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
    )
