"""Names of places in a backbone, and the tensor that each refers to."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from offramp.backbones.tracing import Traced
from offramp.backbones.values import Value
from offramp.errors import CutError


@dataclass(frozen=True, eq=False)
class Names:
    """All names of places.

    Attributes:
        nodes: Node of each usable name; a module's name refers to its output.
        modules: Names that are module paths.
        refused: Module paths that do not refer to one tensor, each with reason and advice.
    """

    nodes: Mapping[str, fx.Node]
    modules: frozenset[str]
    refused: Mapping[str, str]

    def find(self, name: str) -> fx.Node:
        """The node that `name` refers to.

        Raises:
            CutError: No such place, or it does not name one tensor.
        """
        if name in self.nodes:
            return self.nodes[name]
        if name in self.refused:
            raise CutError(self.refused[name])
        near = difflib.get_close_matches(name, [*self.nodes, *self.refused], n=4, cutoff=0.4)
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        raise CutError(
            f"The backbone has no place {name!r}. {hint}`offramp cuts` (or "
            "offramp.backbones.places.list_places) lists all of them."
        )


def name_places(traced: Traced, values: Mapping[fx.Node, Value]) -> Names:
    """Collect the names of all tensors in a traced model."""
    repeated = {path for path, calls in traced.outputs.items() if len(calls) > 1}
    nodes, refused = _name_outputs(traced, repeated, values)
    modules = frozenset(nodes)
    for node, implicit in traced.names.items():
        name = _explicit(implicit, repeated)
        if node in values and name not in nodes and name not in refused:
            if values[node].kind == "tensor":
                nodes[name] = node
            else:
                refused[name] = _not_one_tensor(name, node, traced, repeated, values)
    return Names(nodes, modules, refused)


def _name_outputs(
    traced: Traced, repeated: set[str], values: Mapping[fx.Node, Value]
) -> tuple[dict[str, fx.Node], dict[str, str]]:
    """Nodes by the path of their module, and the paths that do not refer to one tensor."""
    nodes: dict[str, fx.Node] = {}
    refused: dict[str, str] = {}
    for path, calls in traced.outputs.items():
        if path in repeated:
            spelled = [", ".join(_spell(call, traced.names, repeated)) for call in calls]
            refused[path] = (
                f"{path!r} is called {len(calls)} times, so it does not name one tensor. "
                f"Use one of its nodes: {', '.join(name for name in spelled if name)}."
            )
        elif isinstance(calls[0], fx.Node) and values[calls[0]].kind == "tensor":
            nodes[path] = calls[0]
        else:
            refused[path] = _not_one_tensor(path, calls[0], traced, repeated, values)
    for path, other in _shared_paths(traced):
        if path in nodes:
            nodes[other] = nodes[path]
        else:
            refused[other] = f"{other!r} is another name for {path!r}. {refused[path]}"
    return nodes, refused


def _shared_paths(traced: Traced) -> Iterator[tuple[str, str]]:
    """For each further path of a module, the path by which it is traced."""
    paths: dict[int, list[str]] = {}
    for path, module in _every_path(traced.root, "", ()):
        paths.setdefault(id(module), []).append(path)
    for same in paths.values():
        for path in traced.outputs.keys() & same:
            yield from ((path, other) for other in same if other != path)


def _every_path(
    module: nn.Module, path: str, above: tuple[nn.Module, ...]
) -> Iterator[tuple[str, nn.Module]]:
    """Modules by all of their paths, of which a module may have several."""
    yield path, module
    for name, child in module._modules.items():
        if child is not None and child not in (*above, module):
            yield from _every_path(child, f"{path}.{name}".lstrip("."), (*above, module))


def _explicit(name: str, repeated: set[str]) -> str:
    """The first call's node bears the module's own path; `_0` tells the two apart."""
    return f"{name}_0" if name in repeated else name


def _spell(output: Any, names: Mapping[fx.Node, str], repeated: set[str]) -> Iterator[str]:
    """Names of all nodes in what a module returned."""
    if isinstance(output, fx.Node):
        yield _explicit(names[output], repeated)
    elif isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        for item in output:
            yield from _spell(item, names, repeated)


def _not_one_tensor(
    name: str,
    output: Any,
    traced: Traced,
    repeated: set[str],
    values: Mapping[fx.Node, Value],
) -> str:
    if isinstance(output, fx.Node):
        if values[output].kind == "weight":
            return (
                f"{name!r} is a parameter or buffer; there is nothing to compute before it. Cut "
                "after a layer."
            )
        members = [user for user in output.users if values[output].kind == "pack"]
        spelled = [traced.names[user] for user in members if user in traced.names]
        gives = values[output].about
    else:
        spelled = list(_spell(output, traced.names, repeated))
        gives = f"a {type(output).__name__}"
    hint = f"Use one of its tensors: {', '.join(spelled)}." if spelled else "Cut elsewhere."
    return f"{name!r} gives {gives}, not one tensor, so no branch can read it. {hint}"
