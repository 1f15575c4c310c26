"""Encodings of the tensors at a cut: fp32 as they are, fp16, and int8 with a range per channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offramp.arguments import check_kind
from offramp.errors import DataError, PlanError

Encoding = Literal["fp32", "fp16", "int8"]
"""`fp32` sends single precision as it is, and `fp16` rounds it. `int8` sends one byte per number:
256 equal steps from the least to the greatest number of each channel (axis 1) of each sample; of
each sample where there are no axes beyond the channels. Whole numbers are sent as they are."""

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

Array = NDArray[Any]

_LOW, _STEP = ".low", ".step"
_STEPS = 255


@dataclass(frozen=True)
class TensorFacts:
    """What is known of a tensor before it is there.

    Attributes:
        shape: Its shape, with the batch axis.
        dtype: Type of its numbers, as numpy names it.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


def check_encoding(encoding: object) -> None:
    """Refuse an unknown encoding.

    Raises:
        PlanError: It names those that there are.
    """
    check_kind(encoding, str, "encoding", f"Give one of {', '.join(ENCODINGS)}.")
    if encoding not in ENCODINGS:
        raise PlanError(f"there is no encoding {encoding!r}. Use one of {', '.join(ENCODINGS)}.")


def encoded_facts(name: str, facts: TensorFacts, encoding: Encoding) -> dict[str, TensorFacts]:
    """The arrays that a tensor is encoded in."""
    if encoding == "fp32" or facts.dtype != "float32":
        return {name: facts}
    if encoding == "fp16":
        return {name: TensorFacts(facts.shape, "float16")}
    axes = _axes(len(facts.shape))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(facts.shape))
    return {
        name: TensorFacts(facts.shape, "uint8"),
        name + _LOW: TensorFacts(kept, "float32"),
        name + _STEP: TensorFacts(kept, "float32"),
    }


def encoded(name: str, array: Array, encoding: Encoding) -> dict[str, Array]:
    """A tensor (B, ...) in an encoding.

    Raises:
        DataError: It has numbers that are not finite, or too large for half precision.
    """
    _check_finite(name, array)
    if encoding == "fp32" or array.dtype != np.float32:
        return {name: array}
    if encoding == "fp16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise DataError(
                f"the tensor {name!r} at the cut has the value {float(np.abs(array).max()):.4g}, "
                f"and fp16 has none above {np.finfo(np.float16).max:.0f}. Use int8 or fp32."
            )
        return {name: half}
    axes = _axes(array.ndim)
    low, high = array.min(axis=axes, keepdims=True), array.max(axis=axes, keepdims=True)
    step = (high / _STEPS - low / _STEPS).astype(np.float32)
    places = np.rint((array - low) / np.where(step > 0, step, 1))
    return {
        name: np.clip(places, 0, _STEPS).astype(np.uint8),
        name + _LOW: low,
        name + _STEP: step,
    }


def decoded(name: str, arrays: Mapping[str, Array], encoding: Encoding) -> Array:
    """The tensor from the arrays of `encoded`.

    Raises:
        DataError: It has numbers that are not finite.
    """
    array = arrays[name]
    if encoding == "int8" and array.dtype == np.uint8 and name + _LOW in arrays:
        with np.errstate(over="ignore", invalid="ignore"):
            array = arrays[name + _LOW] + arrays[name + _STEP] * array.astype(np.float32)
    elif encoding == "fp16" and array.dtype == np.float16:
        array = array.astype(np.float32)
    _check_finite(name, array)
    return array


def _axes(dimensions: int) -> tuple[int, ...]:
    """Axes that share a range: all beyond the channels, or the channels themselves."""
    return tuple(range(2, dimensions)) or tuple(range(1, dimensions))


def _check_finite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"the tensor {name!r} at the cut has numbers that are not finite, so nothing can be "
            "computed from it. Check the sample, and what sent it."
        )
