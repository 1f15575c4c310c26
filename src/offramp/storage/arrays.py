"""Checks of arrays: shape, range, and finite numbers only."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.errors import ShapeError

A = TypeVar("A", bound=np.generic)


def checked_outputs(name: str, values: ArrayLike, axes: str) -> NDArray[np.float32]:
    """Return finite float32 outputs with the axes that `axes` names, none of them empty.

    Raises:
        ShapeError: They are not.
    """
    try:
        given = np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{name} must have one shape, {axes}: {_uneven(values, axes)}") from error
    if given.ndim != axes.count(",") + 1 or 0 in given.shape or given.dtype.kind not in "fiu":
        raise ShapeError(
            f"{name} must be numbers of shape {axes}, with no axis of length 0; "
            f"got {given.dtype} {given.shape}."
        )
    with np.errstate(over="ignore"):
        copy = np.array(given, np.float32, order="C")  # the only one: outputs may fill the memory
    copy.flags.writeable = False
    return finite(name, copy)


def _uneven(values: ArrayLike, axes: str) -> str:
    """Describe arrays of different shapes along the first axis, and how to fix that.

    Names the first and those that differ from it, at most ten.
    """
    outer, *inner = axes.strip("()").split(", ")
    shapes = [_shape(part) for part in cast(Sequence[ArrayLike], values)]
    apart = [at for at, shape in enumerate(shapes) if at == 0 or shape != shapes[0]][:10]
    parts = [f"{outer.removesuffix('s')} {at} {_extent(shapes[at], inner)}" for at in apart]
    return f"{', '.join(parts)}. Give all {outer} the same {' and '.join(inner)}, in one order."


def _shape(values: ArrayLike) -> tuple[int, ...] | None:
    try:
        return np.shape(values)
    except ValueError:
        return None


def _extent(shape: tuple[int, ...] | None, axes: Sequence[str]) -> str:
    if shape is None:
        return "has rows of different lengths"
    if len(shape) != len(axes):
        return f"has shape {shape}"
    return f"has {' x '.join(f'{n} {axis}' for n, axis in zip(shape, axes, strict=True))}"


def checked_counts(name: str, values: ArrayLike, length: int) -> NDArray[np.int64]:
    """Return whole numbers from 0, such as FLOPs, as (length,) int64.

    Raises:
        ShapeError: The length differs, or a number is negative or not whole.
    """
    given = finite(name, shaped(name, np.asarray(values), (length,)))
    if np.any(given < 0) or np.any(given != np.floor(given)):
        raise ShapeError(f"{name} must be whole numbers, 0 or larger; got {given.tolist()}.")
    return kept(given.astype(np.int64))


def checked_times(name: str, values: ArrayLike | None, length: int) -> NDArray[np.float64] | None:
    """Return measured milliseconds as (length,) float64, or None.

    Raises:
        ShapeError: The length differs, or a number is negative or not finite.
    """
    if values is None:
        return None
    given = finite(name, shaped(name, np.asarray(values, np.float64), (length,)))
    if np.any(given < 0):
        raise ShapeError(f"{name} must not be negative, got {given.tolist()}.")
    return kept(given)


def checked_texts(name: str, values: ArrayLike | None, length: int) -> NDArray[np.str_] | None:
    """Return texts as (length,), or None.

    Raises:
        ShapeError: The length differs.
    """
    if values is None:
        return None
    return kept(shaped(name, np.asarray(values).astype(np.str_), (length,)))


def checked_set_names(
    name: str, values: ArrayLike | None, length: int
) -> NDArray[np.generic] | None:
    """Return names of the sets that samples belong to as (length,) texts or int64, or None.

    Raises:
        ShapeError: The length differs.
    """
    if values is None or np.asarray(values).dtype.kind not in "iu":
        return checked_texts(name, values, length)
    return kept(shaped(name, np.asarray(values, np.int64), (length,)))


def checked_source(source: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return `source` as JSON would store it.

    Raises:
        ShapeError: It holds something that JSON cannot store.
    """
    if source is None:
        return None
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(source), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"source must hold JSON values only: {error}. Use text and numbers."
        ) from error
    return copy


def shaped(name: str, values: NDArray[A], shape: tuple[int, ...]) -> NDArray[A]:
    """Return the values if they have this shape.

    Raises:
        ShapeError: They have another one.
    """
    if values.shape != shape:
        raise ShapeError(f"{name} must have shape {shape} to fit the outputs, got {values.shape}.")
    return values


def finite(name: str, values: NDArray[A]) -> NDArray[A]:
    """Return the values if they are numbers, none of them NaN or infinite.

    Raises:
        ShapeError: They are not.
    """
    if values.dtype.kind not in "fiu":
        raise ShapeError(f"{name} must be numbers, got {values.dtype}.")
    if values.size and not np.isfinite([values.min(), values.max()]).all():  # takes no memory
        wrong = np.argwhere(~np.isfinite(values))
        raise ShapeError(
            f"{name} has {len(wrong)} values that are NaN or infinite, the first at "
            f"{tuple(wrong[0].tolist())}. Find their cause: the data, the model, or an "
            "overflow in low precision."
        )
    return values


def kept(values: NDArray[A]) -> NDArray[A]:
    """Return a read-only copy."""
    copy = np.array(values, order="C")
    copy.flags.writeable = False
    return copy
