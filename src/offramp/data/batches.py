"""Batches of any map-style data set, checked where they enter, and what identifies a data set."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.images import LabelledImages
from offramp.errors import DataError, ShapeError


class MapDataset(Protocol):
    """A map-style data set: item i is (input or tuple of inputs, label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples, collated.

    Attributes:
        inputs: One tensor per input of the model, each (B, ...).
        targets: Shape (B,), int64 for class numbers and float32 for values.
        indices: Shape (B,), places of the samples in the data set.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    indices: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArrayPairs:
    """Arrays of inputs and an array of labels, as a map-style data set."""

    inputs: tuple[Tensor, ...]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], Any]:
        return tuple(array[index] for array in self.inputs), self.labels[index]


def as_dataset(data: Any) -> MapDataset:
    """Accept a map-style data set, or a pair of arrays or tensors (inputs, labels).

    `inputs` may be a tuple of arrays where the model takes several.

    Raises:
        DataError: It is neither, or it is empty.
        ShapeError: The arrays of a pair differ in length.
    """
    dataset: Any = _array_pairs(data) if _is_pair(data) else data
    if isinstance(dataset, tuple) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise DataError(
            f"a data set needs len() and [i] giving (input, label), or is a pair of arrays "
            f"(inputs, labels); got {type(data).__name__}. An iterable set can be put in a list."
        )
    if len(dataset) == 0:
        raise DataError("the data set is empty. Check the split or the folder it comes from.")
    checked: MapDataset = dataset
    return checked


def batches(
    dataset: MapDataset, batch_size: int, *, order: Sequence[int] | NDArray[Any] | None = None
) -> Iterator[Batch]:
    """Yield the samples at `order` (all of them, in turn, where None); the last batch may be short.

    float64 inputs become float32, whole-number labels int64 and other labels float32.

    Raises:
        DataError: An input or label is not finite, is no number, or the set is empty.
        ShapeError: Samples differ in the number or the shape of their inputs.
    """
    places = np.arange(len(dataset)) if order is None else np.asarray(order, np.int64)
    if len(places) == 0:
        raise DataError("there are no samples to read. Check the split or the order.")
    for start in range(0, len(places), batch_size):
        yield _batch(dataset, places[start : start + batch_size])


def labels_of(dataset: MapDataset) -> NDArray[Any]:
    """Labels (N,) of all samples: int64 class numbers or float32 values."""
    if isinstance(dataset, LabelledImages | ArrayPairs):
        return dataset.labels
    return _as_labels([dataset[index][1] for index in range(len(dataset))])


def ids_of(dataset: MapDataset) -> NDArray[np.str_]:
    """A name (N,) for each sample: its own where the set has them, else its place."""
    if isinstance(dataset, LabelledImages):
        return dataset.ids
    return np.array([str(index) for index in range(len(dataset))])


def fingerprint(dataset: MapDataset) -> str:
    """SHA-256 that changes with any sample or label.

    A data set's own `fingerprint` is believed; otherwise every sample is read and hashed.
    """
    if isinstance(dataset, _Fingerprinted):
        return dataset.fingerprint
    return _sample_hash(dataset)


def content_key(dataset: MapDataset) -> str:
    """SHA-256 over all that decides what the samples are, preprocessing included."""
    if isinstance(dataset, LabelledImages):
        return dataset.content_key
    return _sample_hash(dataset)


def check_labels(
    labels: NDArray[Any], num_outputs: int, class_names: Sequence[str] | None = None
) -> None:
    """Refuse class numbers that the model has no output for.

    Raises:
        DataError: A label is outside 0..num_outputs - 1, or the names are not `num_outputs` many.
    """
    if class_names is not None and len(class_names) != num_outputs:
        raise DataError(
            f"the data has {len(class_names)} classes but the model has {num_outputs} outputs. "
            "Use a model trained on these classes, or the data it was trained on."
        )
    wrong = labels[(labels < 0) | (labels >= num_outputs)]
    if len(wrong):
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but the model has {num_outputs} "
            f"outputs, so classes are 0 to {num_outputs - 1}: {len(wrong)} of {len(labels)} labels "
            "do not fit. Number the classes from 0, or use a model with as many outputs."
        )


def _batch(dataset: MapDataset, places: NDArray[np.int64]) -> Batch:
    if isinstance(dataset, LabelledImages):
        images, labels = dataset.batch(places)
        return Batch((images,), labels, places)
    samples = [dataset[int(place)] for place in places]
    rows = [_as_inputs(sample[0]) for sample in samples]
    inputs = tuple(_stack(column, places) for column in zip(*rows, strict=True))
    targets = torch.from_numpy(_as_labels([sample[1] for sample in samples]))
    for values in inputs:
        _check_finite(values, dataset, places)
    return Batch(inputs, targets, places)


def _as_inputs(value: Any) -> tuple[Tensor, ...]:
    parts = value if isinstance(value, tuple | list) else (value,)
    return tuple(_single(torch.as_tensor(part)) for part in parts)


def _single(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float64 else value


def _stack(column: Sequence[Tensor], places: NDArray[np.int64]) -> Tensor:
    for value, place in zip(column, places, strict=True):
        if value.shape != column[0].shape:
            raise ShapeError(
                f"sample {place} is {tuple(value.shape)} but sample {places[0]} is "
                f"{tuple(column[0].shape)}. Give every sample one shape (resize or crop them)."
            )
    return torch.stack(list(column))


def _check_finite(values: Tensor, dataset: MapDataset, places: NDArray[np.int64]) -> None:
    if not values.is_floating_point() or bool(torch.isfinite(values).all()):
        return
    row = int((~torch.isfinite(values.flatten(1)).all(dim=1)).nonzero()[0])
    raise DataError(
        f"sample {places[row]} holds NaN or infinite values. Remove it or mend it before training."
    )


def _as_labels(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    array = np.asarray([np.asarray(label).item() for label in labels])
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim > 0


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[1])


def _array_pairs(data: Any) -> ArrayPairs:
    inputs, labels = _as_inputs(data[0]), np.asarray(data[1])
    lengths = [*map(len, inputs), len(labels)]
    if len(set(lengths)) != 1:
        raise ShapeError(
            f"inputs and labels have {lengths} rows. Give one label per row of each input."
        )
    return ArrayPairs(inputs, _as_labels(labels))


def _sample_hash(dataset: MapDataset) -> str:
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        value, label = dataset[index]
        for part in (*_as_inputs(value), torch.as_tensor(label)):
            array = part.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
