"""In-place operations: kept where nothing else reads the change, else made out of place."""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from offramp.backbones.operators import OUT_OF_PLACE
from offramp.backbones.values import Value
from offramp.errors import CutError


@dataclass(frozen=True, eq=False)
class Hazards:
    """Dependencies on in-place operations that the graph does not show.

    Attributes:
        after: For each node, the operations that change memory which it reads under another name.
    """

    after: Mapping[fx.Node, frozenset[fx.Node]]

    def readers_of(self, writer: fx.Node) -> list[fx.Node]:
        """Nodes that read, under another name, what `writer` changes."""
        return [node for node, writers in self.after.items() if writer in writers]


def read_what_was_written(graph: fx.Graph, values: Mapping[fx.Node, Value]) -> Hazards:
    """Make later readers of a tensor changed in place read the node that changed it.

    After this the graph's edges give the order of such operations, in whatever stage they end up.
    No edge can be drawn if the change is seen through a view; those are returned as hazards.
    """
    # A reader behind the write must see the change, one before it must not; both hold as long as
    # the model's own order is kept. A cut does not keep it: a later reader may land in an earlier
    # stage than the write, since nothing in the graph says that it needs it. So the need is made
    # explicit. In graph order, so that of two writes the reader ends at the second.
    order = {node: index for index, node in enumerate(graph.nodes)}
    writers = [node for node in graph.nodes if node in values and values[node].written]
    after: dict[fx.Node, set[fx.Node]] = {}
    for writer in writers:
        value = values[writer]
        for holder, held in values.items():
            if order[holder] >= order[writer] or not held.storages & value.written:
                continue
            later = [user for user in holder.users if order[user] > order[writer]]
            if value.replaces is not None and held.same_as is value.replaces:
                for user in later:
                    user.replace_input_with(holder, writer)
            else:
                for user in later:
                    after.setdefault(user, set()).add(writer)
    return Hazards({node: frozenset(found) for node, found in after.items()})


def make_out_of_place(root: nn.Module, node: fx.Node, name: str, hazards: Hazards) -> None:
    """Let an in-place operation return a new tensor and leave its input as it is.

    A module gets a second copy in `root` for this call; its other calls are not changed.

    Raises:
        CutError: There is no such form, or later operations need the changed input itself.
    """
    # Out of place is the same program only if nobody reads the change under another name. Those
    # who read it under this name were pointed at the node itself by read_what_was_written.
    if hazards.readers_of(node):
        raise _cannot(name, "and later operations read the change through a view")
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        if getattr(module, "inplace", None) is not True:
            raise _cannot(name, f"and {type(module).__name__} has no `inplace` to turn off")
        twin = _twin(module)
        twin.inplace = False  # type: ignore[assignment]  # a bool, whatever Module's stub says
        node.target = _add(root, twin, str(node.target))
    elif node.op == "call_method":
        method = str(node.target).removesuffix("_")
        if not hasattr(Tensor, method):
            raise _cannot(name, f"and Tensor has no method {method!r}")
        node.target = method
    else:
        _function_out_of_place(node, name)


def _twin(module: nn.Module) -> nn.Module:
    """A copy with separate settings but the same parameters and buffers.

    Even the registries are shared, so that a move of one to another device or type moves both.
    """
    shared: dict[int, Any] = {}
    for part in module.modules():
        for registry in (part._parameters, part._buffers):
            shared |= {id(held): held for held in (registry, *registry.values())}
    return deepcopy(module, shared)


def _add(root: nn.Module, module: nn.Module, path: str) -> str:
    name = f"{path.replace('.', '_')}_new"
    while hasattr(root, name):
        name += "_"
    root.add_module(name, module)
    return name


def _function_out_of_place(node: fx.Node, name: str) -> None:
    target: Any = node.target
    if target in OUT_OF_PLACE:
        node.target = OUT_OF_PLACE[target]
    elif (twin := _without_underscore(target)) is not None:
        node.target = twin
    elif _sets_inplace(node):
        return
    else:
        raise _cannot(name, "and the function has no form that returns a new tensor")


def _without_underscore(target: Any) -> Callable[..., Any] | None:
    name = getattr(target, "__name__", "")
    if not name.endswith("_") or name.endswith("__"):
        return None
    for module in (torch, F):
        if getattr(module, name, None) is target:
            twin: Callable[..., Any] | None = getattr(module, name[:-1], None)
            return twin
    return None


def _sets_inplace(node: fx.Node) -> bool:
    """Turn off the argument `inplace`, given by name or place; return whether there was one."""
    target: Any = node.target
    if node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    try:
        names = list(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return False
    if "inplace" not in names or names.index("inplace") >= len(node.args):
        return False
    node.update_arg(names.index("inplace"), False)
    return True


def _cannot(name: str, why: str) -> CutError:
    return CutError(
        f"{name} operates in place on a tensor that is still needed after a cut, {why}. A stage "
        "must not change what earlier stages computed. Write that operation out of place in the "
        "model, or cut before the tensor is made or after its last use."
    )
