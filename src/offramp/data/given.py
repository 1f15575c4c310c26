"""Data sets of users: anything with `len` and `[i]`, or a pair of arrays."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.adapted import AdaptedDataset, Keys, checked_keys
from offramp.data.item import (
    Item,
    MapDataset,
    digest_of,
    listed_keys,
    parts_of,
    probe_items,
    read_item,
    single_precision,
)
from offramp.data.samples import NAMES, Batch, Samples, Source
from offramp.errors import DataError, ShapeError
from offramp.table import counted
from offramp.task import as_targets, checked_target


def as_samples(
    data: Any, *, keys: Keys | None = None, preprocess: Callable[[Any], Any] | None = None
) -> Samples:
    """Make Samples of whatever a user may give as a data set.

    Args:
        data: `Samples`; or anything with `len` and `[i]` giving (input or tuple of inputs,
            target), where None stands for an input that a sample lacks, and which may have
            attributes `ids`, `groups` and `clusters` of one entry per sample; or a pair of arrays
            or tensors (inputs, targets), where `inputs` may be a tuple of arrays.
        keys: If `[i]` gives a dict, its keys of the input (or a tuple of keys) and the target,
            such as `("image", "label")`.
        preprocess: Called with each input that is a picture, a pillow image or an array of uint8;
            returns what the model reads, (C, H, W), always the same for the same picture. A
            `SpectrogramPreprocess` is called with each sound: (N,) floats from -1 to 1 at its rate;
            a dict of `array` (N,) and `sampling_rate`, which is resampled; or bytes of a file.

    Raises:
        DataError: It is none of these, or it is empty, or a target is not a number; or keys or
            preprocess are given for arrays or `Samples`.
        ShapeError: The arrays of a pair, or ids, groups and clusters, differ in length.
    """
    ready = isinstance(data, Samples) or _is_pair(data)
    if ready and (keys is not None or preprocess is not None):
        raise DataError(
            "`keys` and `preprocess` are for data sets that give one item at a time, not for "
            "arrays or for what as_samples returned. Leave them out, and prepare arrays beforehand."
        )
    if isinstance(data, Samples):
        return data
    if ready:
        return Samples.of(_array_source(data))
    _check_map_style(data)
    names = {name: getattr(data, name, None) for name in NAMES}
    if keys is not None or preprocess is not None:
        data = AdaptedDataset(data, None if keys is None else checked_keys(keys), preprocess)
    return Samples.of(MapSource(data), **names)


def _check_map_style(data: Any) -> None:
    if isinstance(data, Mapping):
        raise DataError(
            f"a dict is not a data set; this one has {listed_keys(data)}. Give one of its parts, "
            "or a pair (inputs, labels)."
        )
    if isinstance(data, tuple) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        inner = "Give its `.dataset`. " if hasattr(data, "dataset") else ""
        raise DataError(
            "a data set needs len() and [i] giving (input, label), or is a pair of arrays "
            f"(inputs, labels); got {type(data).__name__}. {inner}A stream can be read into a "
            "list first."
        )


class _Seen:
    """Content of each of N samples at its first reading, with which later readings must agree.

    A cache is found by a hash of the content and filled by a second reading. If the two differed,
    taps of one content would be stored under the key of another.
    """

    def __init__(self, count: int) -> None:
        self.known = np.zeros(count, np.bool_)
        self._digests = np.zeros((count, 32), np.uint8)

    def check(self, row: int, parts: Sequence[Tensor | None]) -> None:
        digest = np.frombuffer(digest_of(parts), np.uint8)
        if self.known[row] and not np.array_equal(self._digests[row], digest):
            raise DataError(
                f"sample {row} has changed since it was first read, but features are "
                "computed once and kept. If the data set augments at random, switch that off and "
                'give `augment=` instead, with how="fused" or with a fixed number of `views`. If '
                "its files were changed meanwhile, start again."
            )
        self._digests[row] = digest
        self.known[row] = True

    @property
    def texts(self) -> NDArray[np.str_]:
        return np.array([row.tobytes().hex() for row in self._digests])


class _First(NamedTuple):
    """Kind and shapes of a data set's samples, from the first that were read."""

    row: int
    kind: str
    shapes: tuple[tuple[int, ...] | None, ...]


class MapSource(Source):
    """A map-style data set, read sample by sample in the caller's thread."""

    def __init__(self, dataset: MapDataset) -> None:
        self._dataset = dataset
        self._seen = _Seen(len(dataset))
        self._targets: list[Any] = [None] * len(dataset)
        self._present: list[Any] = [None] * len(dataset)
        self._first: _First | None = None
        self._probed = False
        self._kept: dict[int, Item] = {}  # what the probe has read and nobody has used yet

    settings = ""

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source."""
        self._probe_once()
        samples = [self._sample(int(row)) for row in rows]
        columns = list(zip(*samples, strict=True))
        present = np.array([[value is not None for value in column] for column in columns]).T
        targets = as_targets([self._targets[row] for row in rows])
        return Batch(
            tuple(map(_stacked, columns)),
            torch.from_numpy(targets),
            rows,
            None if present.all() else present,
        )

    @cached_property
    def targets(self) -> NDArray[Any]:
        """See Source."""
        self._read_all()
        return as_targets(self._targets)

    @cached_property
    def present(self) -> NDArray[np.bool_] | None:
        """See Source."""
        self._read_all()
        present = np.array(self._present)
        return None if present.all() else present

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """See Source."""
        self._read_all()
        return self._seen.texts

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        if self._first is None:
            self._sample(0)
        shapes = () if self._first is None else self._first.shapes
        return tuple(shape or () for shape in shapes)

    def _read_all(self) -> None:
        """Targets and digests come with one reading of what was not read yet."""
        self._probe_once()
        for row in np.flatnonzero(~self._seen.known):
            self._sample(int(row))

    def _probe_once(self) -> None:
        if not self._probed:
            self._kept = probe_items(self._dataset)
            self._probed = True

    def _sample(self, row: int) -> tuple[Tensor | None, ...]:
        kept = row in self._kept
        values, target = self._kept.pop(row) if kept else read_item(self._dataset, row)
        self._check_alike(row, values, _kind(target))
        self._seen.check(row, parts_of(values, target))
        self._targets[row] = target
        self._present[row] = [value is not None for value in values]
        return values

    def _check_alike(self, row: int, values: Sequence[Tensor | None], kind: str) -> None:
        shapes = tuple(None if value is None else tuple(value.shape) for value in values)
        first = self._first or _First(row, kind, shapes)
        if len(shapes) != len(first.shapes):
            raise ShapeError(
                f"sample {row} has {counted(len(shapes), 'input')} but sample {first.row} has "
                f"{len(first.shapes)}. Give every sample the same number of inputs, with None in "
                "place of one that is absent."
            )
        pairs = list(zip(first.shapes, shapes, strict=True))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise ShapeError(
                f"sample {row} has inputs of shape {list(shapes)} but sample {first.row} has "
                f"{list(first.shapes)}. Give all samples one shape (resize, crop or pad them)."
            )
        if kind != first.kind:
            raise DataError(
                f"the label of sample {first.row} is {first.kind} but that of sample {row} is "
                f"{kind}. Give class numbers as integers throughout, or values as floats "
                "throughout."
            )
        learned = tuple(here if known is None else known for known, here in pairs)
        self._first = first._replace(shapes=learned)


class ArraySource(Source):
    """Arrays of inputs, each (N, ...), and an array of targets."""

    threadsafe = True
    settings = ""

    def __init__(
        self, inputs: tuple[NDArray[Any] | Tensor, ...], targets: NDArray[Any] | Tensor
    ) -> None:
        self._inputs = inputs
        self._targets = as_targets(
            [checked_target(value, row) for row, value in enumerate(targets)]
        )
        self._seen = _Seen(len(self._targets))

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source."""
        values = tuple(single_precision(torch.as_tensor(array[rows])) for array in self._inputs)
        targets = torch.from_numpy(self._targets[rows])
        for place, row in enumerate(rows):
            self._seen.check(int(row), [*(v[place] for v in values), targets[place]])
        return Batch(values, targets, rows)

    @property
    def targets(self) -> NDArray[Any]:
        """See Source."""
        return self._targets

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """See Source."""
        for row in np.flatnonzero(~self._seen.known):
            self.read(np.array([row]))
        return self._seen.texts

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return tuple(tuple(array.shape[1:]) for array in self._inputs)


def _kind(target: Any) -> str:
    if target.ndim:
        return f"{len(target)} probabilities"
    return "a whole number" if target.dtype.kind in "iu" else "a float"


def _stacked(column: Sequence[Tensor | None]) -> Tensor | None:
    """One input of several samples, (B, ...), with zeros where it is absent."""
    given = next((value for value in column if value is not None), None)
    if given is None:
        return None
    return torch.stack([torch.zeros_like(given) if value is None else value for value in column])


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim > 0


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and _is_array(data[1])


def _array_source(data: Any) -> ArraySource:
    inputs = data[0] if isinstance(data[0], tuple) else (data[0],)
    if not all(map(_is_array, inputs)):
        raise DataError("the inputs of a pair (inputs, labels) must be arrays or tensors.")
    lengths = [*map(len, inputs), len(data[1])]
    if len(set(lengths)) != 1:
        raise ShapeError(
            f"inputs and labels have {lengths} rows. Give one label per row of each input."
        )
    return ArraySource(inputs, data[1])
