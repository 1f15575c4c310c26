"""Checks of arguments: one error that names the argument, what was given, and what to give."""

import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

from offramp.errors import ArgumentError, PlanError

_SHOWN = 40  # characters of a value in an error


def check_kind(value: object, kind: type | tuple[type, ...], name: str, remedy: str) -> None:
    """Refuse an argument that is not an instance of a class.

    Args:
        value: What was given.
        kind: The class, or several.
        name: Of the argument.
        remedy: What to give instead, as a sentence.

    Raises:
        ArgumentError: It is something else.
    """
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} is {described(value)}. {remedy}")


def as_path(value: Any, name: str) -> Path:
    """A path that was given as text or as a path.

    Raises:
        ArgumentError: It is neither, or empty.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise ArgumentError(f"{name} is {described(value)}. Give a path: a str or a pathlib.Path.")
    if not os.fspath(value):
        raise ArgumentError(f"{name} is empty. Give a path, such as 'runs/mine'.")
    return Path(value)


def as_items(value: Any, name: str, remedy: str) -> tuple[Any, ...]:
    """The items of a list or another iterable; a text is not one.

    Raises:
        ArgumentError: It has no items.
    """
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise ArgumentError(f"{name} is {described(value)}. {remedy}")
    return tuple(value)


def check_seed(seed: object, name: str = "seed") -> None:
    """Refuse what numpy takes for no seed.

    Raises:
        PlanError: It is not a whole number, or is negative.
    """
    if not isinstance(seed, Integral) or int(seed) < 0:
        raise PlanError(
            f"{name} is {described(seed)}, but must be a whole number, 0 or larger. Use 0, for "
            "example."
        )


def described(value: object) -> str:
    """What an argument is, for errors: a short value as it is, else its class."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    name = type(value).__name__
    return f"an {name}" if name[0] in "AEIOUaeiou" else f"a {name}"
