"""The inputs that a graph declares, and what is wrong with values that do not fit them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from offramp.errors import ShapeError


@dataclass(frozen=True)
class DeclaredInput:
    """One input as the file of a graph declares it.

    Attributes:
        name: Its name.
        shape: A size per dimension; a name where any size fits.
        dtype: The type of its elements, as numpy calls it.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def takes(self, value: NDArray[Any]) -> bool:
        """Whether the value's shape and type fit."""
        return (
            str(value.dtype) == self.dtype
            and len(value.shape) == len(self.shape)
            and all(
                isinstance(wanted, str) or size == wanted
                for size, wanted in zip(value.shape, self.shape, strict=True)
            )
        )

    def described(self) -> str:
        """Shape and type, such as "(batch, 3, 224, 224) float32"."""
        return f"({', '.join(map(str, self.shape))}) {self.dtype}"


def check_values(
    what: str, declared: Sequence[DeclaredInput], values: Sequence[NDArray[Any]]
) -> None:
    """Raise an error that names the first value that does not fit.

    Args:
        what: What the error calls the graph.
        declared: The inputs of the graph.
        values: What it was given.

    Raises:
        ShapeError: There are too few or too many values, or one has another shape or type.
    """
    if len(values) != len(declared):
        names = ", ".join(entry.name for entry in declared)
        raise ShapeError(
            f"{what} takes {len(declared)} inputs ({names}), but was given {len(values)} values. "
            "Pass one value per input, in this order."
        )
    for entry, value in zip(declared, values, strict=True):
        if not entry.takes(value):
            raise ShapeError(
                f"{what} takes {entry.described()} as its input {entry.name!r}, but was given "
                f"{value.shape} {value.dtype}. Pass values as the stage before returns them, and "
                "samples as the bundle's preprocessing prepares them."
            )
