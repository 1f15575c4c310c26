"""One sample of any map-style data set, as tensors and a number; anything else is refused."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.errors import DataError, ShapeError


class MapDataset(Protocol):
    """A map-style data set: item i is (input or tuple of inputs, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class BatchDataset(ABC):
    """A data set of this package: it reads several samples in one go and keeps labels and names.

    A base class, not a protocol: other libraries' data sets have a `batch` of another meaning.

    Attributes:
        labels: Shape (N,), int64 class numbers or float32 values.
        ids: Shape (N,), a stable name of each sample.
    """

    if TYPE_CHECKING:  # fields of one child, properties of another

        @property
        def labels(self) -> NDArray[Any]:
            """See the class."""

        @property
        def ids(self) -> NDArray[np.str_]:
            """See the class."""

    @abstractmethod
    def batch(self, places: NDArray[np.int64]) -> tuple[Tensor | tuple[Tensor, ...], Tensor]:
        """Several items at once: each input (B, ...), and labels (B,)."""


def read_sample(dataset: MapDataset, index: int) -> tuple[tuple[Tensor, ...], Any]:
    """Inputs and label of one sample; float64 inputs become float32.

    Raises:
        DataError: The item is no pair, or an input holds something else than numbers.
    """
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"sample {index} is a {type(item).__name__}, not a pair (input, label). "
            "Return the input, or a tuple of inputs, and one label."
        )
    value, label = item
    parts = value if isinstance(value, tuple) else (value,)
    return tuple(_as_tensor(part, index) for part in parts), label


def as_labels(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Labels (N,) from numbers: int64 where all are whole-number types, else float32.

    Raises:
        DataError: A label is no finite number.
    """
    array = np.array([_as_number(label, place) for place, label in enumerate(labels)])
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    if not np.isfinite(array).all():
        place = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataError(f"label {place} is {array[place]}. Remove the sample or mend its label.")
    return array.astype(np.float32)


def single_precision(values: Tensor) -> Tensor:
    """The same values, float64 as float32, apart from any gradient.

    Raises:
        DataError: They are bytes, as raw pixels are.
    """
    if values.dtype == torch.uint8:
        raise DataError(
            "the inputs are uint8, raw pixels it seems. Scale and normalise them to float32 as the "
            "backbone was trained with, for example with offramp.preprocess.ImagePreprocess."
        )
    return values.detach().float() if values.dtype == torch.float64 else values.detach()


def stack(values: Sequence[Tensor], places: NDArray[np.int64]) -> Tensor:
    """One input of several samples: (B, ...).

    Raises:
        ShapeError: Their shapes differ; the first odd one is named.
    """
    for value, place in zip(values, places, strict=True):
        if value.shape != values[0].shape:
            raise ShapeError(
                f"sample {place} has shape {tuple(value.shape)} but sample {places[0]} has "
                f"{tuple(values[0].shape)}. Give all samples one shape (resize, crop or pad them)."
            )
    return torch.stack(list(values))


def _as_tensor(value: Any, index: int) -> Tensor:
    try:
        own = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
    except TypeError as error:
        raise DataError(
            f"an input of sample {index} is a {type(value).__name__} that holds no plain numbers. "
            "Return tensors or numeric arrays (turn pictures into arrays first)."
        ) from error
    return single_precision(own)


def _as_number(label: Any, place: int) -> Any:
    array = np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label)
    if array.size != 1:
        raise ShapeError(f"label {place} has shape {array.shape}. Give one number per sample.")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"label {place} is {label!r}, which is no number. Number the classes from 0, or give "
            "a float to be estimated."
        )
    return array.reshape(())[()]
