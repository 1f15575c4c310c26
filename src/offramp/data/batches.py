"""Batches of any map-style data set, checked where they enter, and what identifies a data set."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.images import LabelledImages
from offramp.data.samples import (
    BatchDataset,
    MapDataset,
    as_labels,
    read_sample,
    single_precision,
    stack,
)
from offramp.errors import DataError, PlanError, ShapeError


@runtime_checkable
class _Fingerprinted(Protocol):
    @property
    def fingerprint(self) -> str: ...


@runtime_checkable
class _Keyed(Protocol):
    @property
    def content_key(self) -> str: ...


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
class ArrayPairs(BatchDataset):
    """Arrays of inputs and an array of labels, as a map-style data set.

    Attributes:
        inputs: One array or tensor per input of the model, each (N, ...).
        labels: Shape (N,), int64 class numbers or float32 values.
    """

    inputs: tuple[NDArray[Any] | Tensor, ...]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[Any, ...], Any]:
        return tuple(array[index] for array in self.inputs), self.labels[index]

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Shape (N,), the places of the samples."""
        return np.arange(len(self)).astype(str)

    def batch(self, places: NDArray[np.int64]) -> tuple[tuple[Tensor, ...], Tensor]:
        """Several items at once: each input (B, ...), and labels (B,)."""
        rows = (torch.as_tensor(array[places]) for array in self.inputs)
        return tuple(map(single_precision, rows)), torch.from_numpy(self.labels[places])


def as_dataset(data: Any) -> MapDataset:
    """Accept a map-style data set, or a pair of arrays or tensors (inputs, labels).

    `inputs` may be a tuple of arrays where the model takes several.

    Raises:
        DataError: It is neither, or it is empty, or a label is no number.
        ShapeError: The arrays of a pair differ in length.
    """
    dataset: Any = _array_pairs(data) if _is_pair(data) else data
    if isinstance(dataset, tuple) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise DataError(
            "a data set needs len() and [i] giving (input, label), or is a pair of arrays "
            f"(inputs, labels); got {type(data).__name__}. A stream can be read into a list first."
        )
    checked: MapDataset = dataset
    if len(checked) == 0:
        raise DataError("the data set is empty. Check the split or the folder it comes from.")
    return checked


def batches(
    dataset: MapDataset, batch_size: int, *, order: Sequence[int] | NDArray[Any] | None = None
) -> Iterator[Batch]:
    """Yield the samples at `order` (all of them, in turn, where None); the last batch may be short.

    float64 inputs become float32, whole-number labels int64 and other labels float32.

    Raises:
        DataError: An input or label is not finite or no number, labels change their kind on the
            way, or there are no samples.
        ShapeError: Samples differ in the number or the shape of their inputs.
    """
    places = np.arange(len(dataset)) if order is None else np.asarray(order, np.int64)
    if batch_size < 1:
        raise PlanError(f"batch_size is {batch_size}, but a batch holds at least 1 sample.")
    if len(places) == 0:
        raise DataError("there are no samples to read. Check the split, or the order asked for.")
    first: Batch | None = None
    for start in range(0, len(places), batch_size):
        batch = read_batch(dataset, places[start : start + batch_size])
        first = first or batch
        _check_alike(batch, first)
        _check_finite(batch, dataset)
        yield batch


def labels_of(dataset: MapDataset) -> NDArray[Any]:
    """Labels (N,) of all samples: int64 class numbers or float32 values.

    Raises:
        DataError: A label is no finite number.
    """
    if isinstance(dataset, BatchDataset):
        return dataset.labels
    return as_labels([dataset[index][1] for index in range(len(dataset))])


def ids_of(dataset: MapDataset) -> NDArray[np.str_]:
    """A name (N,) for each sample: its own where the set has them, else its place."""
    if isinstance(dataset, BatchDataset):
        return dataset.ids
    return np.array([str(index) for index in range(len(dataset))])


def fingerprint(dataset: MapDataset) -> str:
    """SHA-256 that changes with any sample or label.

    A data set's own `fingerprint` is believed; otherwise every sample is read and hashed.

    Raises:
        DataError: The data set gives another sample each time it is asked.
    """
    return dataset.fingerprint if isinstance(dataset, _Fingerprinted) else _sample_hash(dataset)


def content_key(dataset: MapDataset) -> str:
    """SHA-256 over all that decides what the samples are, preprocessing included.

    A data set's own `content_key` is believed; otherwise every sample is read and hashed.

    Raises:
        DataError: The data set gives another sample each time it is asked.
    """
    return dataset.content_key if isinstance(dataset, _Keyed) else _sample_hash(dataset)


def check_labels(
    labels: NDArray[Any], num_outputs: int, class_names: Sequence[str] | None = None
) -> None:
    """Refuse class numbers that the model has no output for.

    Raises:
        DataError: A label is no class number or outside 0..num_outputs - 1, or the class names
            are not `num_outputs` many.
    """
    if class_names is not None and len(class_names) != num_outputs:
        raise DataError(
            f"the data has {len(class_names)} classes but the model has {num_outputs} outputs. "
            "Use a model trained on these classes, or the data it was trained on."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"labels are {labels.dtype}, but classes are whole numbers from 0. Number the classes, "
            "or train for regression."
        )
    wrong = (labels < 0) | (labels >= num_outputs)
    if wrong.any():
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but the model has {num_outputs} "
            f"outputs, so classes are 0 to {num_outputs - 1}: {wrong.sum()} of {len(labels)} "
            f"labels do not fit, the first is that of sample {int(wrong.argmax())}. Number the "
            "classes from 0, or use a model with as many outputs."
        )


def read_batch(dataset: MapDataset, places: NDArray[np.int64]) -> Batch:
    """The samples at these places, whose values are not checked yet.

    Raises:
        DataError: An input or label is no number.
        ShapeError: Samples differ in the number or the shape of their inputs.
    """
    if isinstance(dataset, BatchDataset):
        values, labels = dataset.batch(places)
        return Batch(values if isinstance(values, tuple) else (values,), labels, places)
    samples = [read_sample(dataset, int(place)) for place in places]
    counts = [len(inputs) for inputs, _ in samples]
    if len(set(counts)) > 1:
        raise ShapeError(
            f"samples {places[0]} to {places[-1]} have {sorted(set(counts))} inputs. "
            "Give every sample the same number of inputs."
        )
    inputs = tuple(
        stack(column, places) for column in zip(*(row for row, _ in samples), strict=True)
    )
    return Batch(inputs, torch.from_numpy(as_labels([label for _, label in samples])), places)


def _check_alike(batch: Batch, first: Batch) -> None:
    shapes, known = ([tuple(x.shape[1:]) for x in b.inputs] for b in (batch, first))
    if shapes != known:
        raise ShapeError(
            f"sample {batch.indices[0]} has inputs of shape {shapes} but sample "
            f"{first.indices[0]} has {known}. Give all samples one shape."
        )
    if batch.targets.dtype != first.targets.dtype:
        raise DataError(
            f"labels are {first.targets.dtype} at sample {first.indices[0]} but "
            f"{batch.targets.dtype} at sample {batch.indices[0]}. Give class numbers as integers "
            "throughout, or values as floats throughout."
        )


def _check_finite(batch: Batch, dataset: MapDataset) -> None:
    if isinstance(dataset, LabelledImages):
        return  # made from bytes, finite by the bounds of the preprocessing
    for values in batch.inputs:
        if not values.is_floating_point() or bool(torch.isfinite(values.sum())):
            continue  # a NaN or infinity would have stayed in the sum, which is quick
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        if not bool(finite.all()):
            place = int(batch.indices[int(finite.int().argmin())])
            raise DataError(
                f"sample {place} (id {ids_of(dataset)[place]}) holds NaN or infinite values, which "
                "would spoil all that is trained on it. Mend it or leave it out."
            )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim > 0


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[1])


def _array_pairs(data: Any) -> ArrayPairs:
    inputs = data[0] if isinstance(data[0], tuple) else (data[0],)
    if not all(map(_is_array, inputs)):
        raise DataError("the inputs of a pair (inputs, labels) must be arrays or tensors.")
    lengths = [*map(len, inputs), len(data[1])]
    if len(set(lengths)) != 1:
        raise ShapeError(
            f"inputs and labels have {lengths} rows. Give one label per row of each input."
        )
    return ArrayPairs(inputs, as_labels(data[1]))


def _sample_hash(dataset: MapDataset) -> str:
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        digest.update(_sample_bytes(dataset, index))
    if _sample_bytes(dataset, 0) != _sample_bytes(dataset, 0):
        raise DataError(
            "the data set gives another sample 0 each time it is asked, but every sample is read "
            "once and its features are kept. Switch random augmentation off in the data set, and "
            'give `augment=` instead, with how="fused" or with a fixed number of `views`.'
        )
    return digest.hexdigest()


def _sample_bytes(dataset: MapDataset, index: int) -> bytes:
    inputs, label = read_sample(dataset, index)
    parts = [*inputs, torch.from_numpy(as_labels([label]))]
    return b"".join(
        f"{part.dtype} {tuple(part.shape)};".encode()
        + part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        for part in parts
    )
