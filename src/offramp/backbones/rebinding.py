"""Rebind functions in a model's attributes to the modules of its copy.

A deep copy does not copy functions. One that closes over the user's module (`old =
m.bn.forward; m.bn.forward = lambda x: old(x) * 2`) would run that module inside the stages, and
with it move the user's batch-norm statistics.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from types import CellType, FunctionType, MethodType
from typing import Any, Self

from torch import nn

from offramp.errors import CutError

Memo = dict[int, Any]
"""Copies by the id of their original, as deepcopy keeps them."""


class Rebound:
    """A function whose modules are copied with it."""

    def __init__(self, function: FunctionType, memo: Memo) -> None:
        self.function = _rebuilt(function, memo)
        functools.update_wrapper(self, self.function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function."""
        return self.function(*args, **kwargs)

    def __deepcopy__(self, memo: Memo) -> Self:
        return type(self)(self.function, memo)


def rebind(copy: nn.Module, memo: Memo) -> None:
    """Give functions in attributes and hooks of `copy` its own modules instead of the original's.

    Raises:
        CutError: One reads a module of the original as a global variable.
    """
    for path, module in copy.named_modules():
        for held in (vars(module), module._forward_hooks, module._forward_pre_hooks):
            for key, value in list(held.items()):
                function = _function_in(value)
                if function is not None:
                    _refuse_globals(function, memo, f"{path}.{key}" if path else str(key))
                if function is not None and _reaches(function, memo):
                    held[key] = _replaced(value, Rebound(function, memo))


def _function_in(value: Any) -> FunctionType | None:
    """The function behind a function, bound method or partial."""
    if isinstance(value, MethodType):
        value = value.__func__
    elif isinstance(value, functools.partial):
        value = value.func
    return value if isinstance(value, FunctionType) else None


def _replaced(value: Any, function: Rebound) -> Callable[..., Any]:
    """The same callable around another function; a partial, unlike a method, copies it along."""
    if isinstance(value, MethodType):
        return functools.partial(function, value.__self__)
    if isinstance(value, functools.partial):
        return functools.partial(function, *value.args, **value.keywords)
    return function


def _reaches(value: Any, memo: Memo) -> bool:
    return any(id(found) in memo for found in _modules_of(value))


def _modules_of(value: Any) -> Iterator[nn.Module]:
    """Modules that a function closes over, directly or in other functions."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, MethodType):
        yield from _modules_of(value.__self__)
    else:
        for each in _parts_of(value):
            if each is not value:
                yield from _modules_of(each)


def _parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, FunctionType):
        return (*cells_of(value), value.__defaults__, value.__kwdefaults__)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, tuple | list) else ()


def cells_of(function: FunctionType) -> list[Any]:
    """Variables that a function closes over, as far as they are set."""
    return [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    """Whether a variable that a function closes over has been set; its cell cannot be asked."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _rebuilt(function: FunctionType, memo: Memo) -> FunctionType:
    move = functools.partial(_moved, memo=memo)
    new = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        move(function.__defaults__),
        tuple(
            CellType(move(cell.cell_contents)) if _is_filled(cell) else cell
            for cell in function.__closure__ or ()
        ),
    )
    new.__kwdefaults__ = move(function.__kwdefaults__)
    new.__qualname__, new.__module__ = function.__qualname__, function.__module__
    return new


def _moved(value: Any, memo: Memo) -> Any:
    if not _reaches(value, memo):
        return value
    return _rebuilt(value, memo) if isinstance(value, FunctionType) else deepcopy(value, memo)


def _refuse_globals(function: FunctionType, memo: Memo, where: str) -> None:
    for name in function.__code__.co_names:
        if isinstance(value := function.__globals__.get(name), nn.Module) and id(value) in memo:
            raise CutError(
                f"{where} was replaced by {function.__qualname__}, which reads your model through "
                f"the global variable {name!r}: the stages would run your model's own "
                "modules, not their frozen copies. Give the function what it needs as an argument, "
                "or write it as a module."
            )
