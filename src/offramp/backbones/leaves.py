"""Leaves: module classes that tracing keeps whole, given as classes or by their names."""

import difflib
from collections.abc import Sequence

from torch import nn

from offramp.backbones.frozen import check_model
from offramp.errors import CutError


def find_leaves(model: nn.Module, leaves: Sequence[type[nn.Module] | str]) -> tuple[type, ...]:
    """The classes in `leaves`; names refer to classes, or base classes, of the model's modules.

    A name may be qualified (`package.module.Class`) or not. Nothing is imported for it, so a name
    from a file can only choose among classes of the model.

    Raises:
        CutError: The model is not one, an entry is neither, or a name fits none of these classes
            or several.
    """
    if isinstance(leaves, str | type):
        raise CutError(f"leaves is a list, even for a single class: leaves=[{_shown(leaves)}].")
    check_model(model)
    own = _own_classes(model)
    return tuple(_find(entry, own) for entry in leaves)


def leaf_names(model: nn.Module, classes: Sequence[type]) -> tuple[str, ...]:
    """Qualified names of those classes that some module of the model has."""
    own = _own_classes(model)
    return tuple(dict.fromkeys(_qualified(each) for each in classes if each in own))


def _own_classes(model: nn.Module) -> list[type]:
    """Classes of all modules and their bases, without torch's own bare `Module`."""
    classes = dict.fromkeys(c for module in model.modules() for c in type(module).__mro__)
    return [c for c in classes if issubclass(c, nn.Module) and c is not nn.Module]


def _find(entry: type | str, own: Sequence[type]) -> type:
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return entry
    if not isinstance(entry, str):
        raise CutError(
            f"leaves holds {_shown(entry)}; it takes classes of modules, or their names, such as "
            "leaves=[type(model.block)]."
        )
    found = [c for c in own if _qualified(c) == entry]
    found = found or [c for c in own if entry in (c.__name__, c.__qualname__)]
    # a class of a script or a notebook has another module's name each time it is run
    found = found or [c for c in own if entry.endswith(f".{c.__qualname__}")]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(map(_qualified, found))
        raise CutError(
            f"The leaf {entry!r} matches several classes: {names}. Give the full name of one."
        )
    near = difflib.get_close_matches(entry, [c.__name__ for c in own], n=3, cutoff=0.4)
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise CutError(f"The backbone has no module of the class {entry!r} in `leaves`.{hint}")


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shown(entry: object) -> str:
    return entry.__name__ if isinstance(entry, type) else repr(entry)
