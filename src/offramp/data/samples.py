"""Samples: the one type of data set inside the package."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from offramp.errors import DataError, PlanError, ShapeError

NAMES = ("ids", "groups", "clusters")
Rows = Sequence[int] | range | NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples, collated.

    Attributes:
        values: One tensor per input of the model, each (B, ...). It holds zeros where a sample
            lacks that input, and is None if all samples do.
        targets: (B,) int64 class numbers, (B,) float32 values or (B, K) float32 probabilities.
        rows: (B,) places of the samples in the data set.
        present: (B, inputs), whether a sample has each input; None if all have all.
    """

    values: tuple[Tensor | None, ...]
    targets: Tensor
    rows: NDArray[np.int64]
    present: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """One tensor (B, ...) per input, for a model that needs all of them.

        Raises:
            DataError: A sample lacks an input.
        """
        if self.present is not None and not self.present.all():
            place, number = np.argwhere(~self.present)[0]
            raise DataError(
                f"sample {self.rows[place]} lacks input {number} (it is None), and this model "
                "needs all of its inputs. Leave such samples out, or give a neutral input, such "
                "as zeros."
            )
        return tuple(values for values in self.values if values is not None)


class Source(ABC):
    """Where N samples come from: reads some of them at once and says what identifies them.

    A base class, not a protocol: other libraries' data sets have a `read` with another meaning.
    """

    threadsafe: bool = False
    """Whether several threads may read at once."""
    finite: bool = False
    """Whether every value is finite by construction."""
    may_fail: bool = False
    """Whether samples lie in files that may turn out to be damaged."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Batch:
        """The samples at these places."""

    @property
    @abstractmethod
    def targets(self) -> NDArray[Any]:
        """(N,) int64 or float32, or (N, K) float32."""

    @property
    @abstractmethod
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each sample's raw content."""

    @property
    def present(self) -> NDArray[np.bool_] | None:
        """(N, inputs), whether a sample has each input; None where all have all."""
        return None

    @property
    @abstractmethod
    def settings(self) -> str:
        """What turns the raw content into inputs, as text."""

    @property
    @abstractmethod
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each input, without the batch axis."""


@dataclass(frozen=True, eq=False)
class Samples:
    """N samples with 1..n inputs and a target each; item i is (input or tuple of inputs, target).

    Attributes:
        source: Where they are read.
        rows: (N,) their places in the source.
        ids: (N,) a stable name of each sample; None if the data has no names.
        groups: (N,) text or integers that divide the samples into groups.
        clusters: (N,) text or integers; samples of one source (a track, a speaker) share one.

    Raises:
        DataError: There are no samples, or ids, groups or clusters are neither text nor integers.
        ShapeError: There is not one id, group or cluster for each sample.
    """

    source: Source
    rows: NDArray[np.int64]
    ids: NDArray[np.str_] | None = None
    groups: NDArray[Any] | None = None
    clusters: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise DataError("the data set is empty. Check the split or the folder it comes from.")
        for name in NAMES:
            names = _checked_names(name, getattr(self, name), len(self.rows))
            object.__setattr__(self, name, names)

    @classmethod
    def of(cls, source: Source, **names: ArrayLike | None) -> Self:
        """All samples of a source, in its order, with `ids`, `groups` and `clusters` if given."""
        return cls(source, np.arange(len(source)), **names)  # type: ignore[arg-type]  # checked

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        batch = self.read([range(len(self))[index]])
        values = tuple(None if v is None else v[0] for v in batch.values)
        target = batch.targets[0]
        return values[0] if len(values) == 1 else values, target if target.ndim else target.item()

    @cached_property
    def targets(self) -> NDArray[Any]:
        """(N,) int64 class numbers, (N,) float32 values or (N, K) float32 probabilities.

        A user's own data set is read once for them, unless all of it was read before.
        """
        return self.source.targets[self.rows]

    @cached_property
    def present(self) -> NDArray[np.bool_] | None:
        """(N, inputs), whether a sample has each input, from the same reading as `targets`.

        None where all have all.
        """
        found = self.source.present
        return None if found is None or found[self.rows].all() else found[self.rows]

    @cached_property
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each sample's raw content, from the same reading as `targets`."""
        return self.source.digests[self.rows]

    @cached_property
    def content_key(self) -> str:
        """SHA-256 over all that decides what the samples are, including preprocessing and names."""
        named = [names for names in (self.ids, self.groups, self.clusters) if names is not None]
        columns = [self.digests, self.targets, *named]
        lines = [" ".join(map(str, row)) for row in zip(*columns, strict=True)]
        return hashlib.sha256("\n".join([self.source.settings, *lines]).encode()).hexdigest()

    @property
    def threadsafe(self) -> bool:
        """Whether several threads may read at once."""
        return self.source.threadsafe

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each input, without the batch axis."""
        return self.source.input_shapes

    def read(self, rows: Rows) -> Batch:
        """The samples at these places, float64 as float32.

        Raises:
            DataError: A value is not finite or not a number, targets change their kind, a sample
                has changed since it was first read, or there are no places.
            ShapeError: Samples differ in the number or the shape of their inputs.
        """
        places = np.asarray(rows, np.int64)
        if len(places) == 0:
            raise DataError(
                "there are no samples to read: the list of sample numbers is empty. Check the "
                "split."
            )
        batch = replace(self.source.read(self.rows[places]), rows=places)
        if not self.source.finite:
            for values in batch.values:
                self._check_finite(values, places)
        return batch

    def batches(self, batch_size: int, *, order: Rows | None = None) -> Iterator[Batch]:
        """The samples at `order` (all, in turn, if None); the last batch may be short.

        Raises:
            PlanError: `batch_size` is below 1.
            DataError, ShapeError: As `read`.
        """
        places = np.arange(len(self)) if order is None else np.asarray(order, np.int64)
        if batch_size < 1:
            raise PlanError(f"batch_size is {batch_size}, but a batch holds at least 1 sample.")
        for start in range(0, len(places) or 1, batch_size):  # `read` refuses none at all
            yield self.read(places[start : start + batch_size])

    def subset(self, rows: Rows) -> Self:
        """The samples at these places, in this order."""
        places = np.asarray(rows, np.int64)
        given = {name: getattr(self, name) for name in NAMES}
        kept = {name: names[places] for name, names in given.items() if names is not None}
        return replace(self, rows=self.rows[places], **kept)

    def sample(self, count: int, seed: int, *, shuffled: bool = False) -> Self:
        """At most `count` samples, drawn at random but spread evenly over the targets.

        Each class keeps its share to within one sample, and so does each range of values if
        targets are values. They come in the order of this data set, or in random order if
        `shuffled`, which matters if a batch should be a mixture of classes.
        """
        rng = np.random.default_rng(seed)
        mixed = rng.permutation(len(self))
        targets = self.targets if self.targets.ndim == 1 else self.targets.argmax(axis=1)
        by_target = mixed[np.argsort(targets[mixed], kind="stable")]
        number = min(count, len(self))
        # Every (N / number)-th in the order of the targets, which gives each class its share.
        steps = (np.arange(number) * len(self) + rng.integers(len(self))) // number
        chosen = by_target[steps]
        return self.subset(rng.permutation(chosen) if shuffled else np.sort(chosen))

    def name_of(self, row: int) -> str:
        """How messages call a sample: its place, and its id if it has one."""
        return f"sample {row}" if self.ids is None else f"sample {row} (id {self.ids[row]})"

    def _check_finite(self, values: Tensor | None, rows: NDArray[np.int64]) -> None:
        if values is None or not values.is_floating_point():
            return
        if bool(torch.isfinite(values.sum())):
            return  # a NaN or infinity would have stayed in the sum, which is quick
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        if not bool(finite.all()):
            row = int(rows[int(finite.int().argmin())])
            raise DataError(
                f"{self.name_of(row)} holds NaN or infinite values, which would spoil everything "
                "trained on it. Correct it or leave it out."
            )


def _checked_names(what: str, names: ArrayLike | None, count: int) -> NDArray[Any] | None:
    """Ids, groups or clusters as an array (N,) of text or integers."""
    if names is None:
        return None
    given = np.asarray(names)
    if given.dtype == object:
        given = np.array(given.tolist())
    if given.shape != (count,):
        raise ShapeError(
            f"{what} have shape {given.shape} for {count} samples. Give one for each sample, in "
            "the order of the samples."
        )
    if given.dtype.kind not in "iuU":
        raise DataError(f"{what} are {given.dtype}, but must be text or whole numbers.")
    return given.astype(str) if what == "ids" else given
