"""Labelled images: pictures, their classes and the preprocessing, as a map-style data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from offramp.data.samples import BatchDataset
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess


class Pictures(Protocol):
    """Pictures by number: an array (N, H, W) or (N, H, W, C) of uint8, or files read on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image.Image | NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class LabelledImages(Dataset[tuple[Tensor, int]], BatchDataset):
    """Pictures with a class each; item i is ((C, H, W) float32, class number).

    Attributes:
        pictures: The raw pictures.
        labels: Shape (N,), class numbers.
        ids: Shape (N,), a stable name of each picture.
        digests: Shape (N,), SHA-256 of each picture's raw bytes.
        preprocess: What makes a picture the backbone's input.
    """

    pictures: Pictures
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]
    digests: NDArray[np.str_]
    preprocess: ImagePreprocess

    def __post_init__(self) -> None:
        counts = {len(self.pictures), *map(len, (self.labels, self.ids, self.digests))}
        if len(counts) != 1:
            raise ShapeError(
                f"{len(self.pictures)} pictures come with {len(self.labels)} labels, "
                f"{len(self.ids)} ids and {len(self.digests)} digests. Give one each."
            )
        if len(self.labels) == 0:
            raise DataError("there are no images: the set is empty. Check the folder or the split.")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.preprocess(self.pictures[index])), int(self.labels[index])

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Several items at once: (B, C, H, W) float32 and (B,) int64, bit for bit as one by one."""
        images = self.preprocess.batch([self.pictures[int(index)] for index in indices])
        return torch.from_numpy(images), torch.from_numpy(self.labels[np.asarray(indices)])

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "LabelledImages":
        """The pictures at these places, in this order."""
        rows = np.asarray(indices, np.int64)
        return LabelledImages(
            _Chosen(self.pictures, rows),
            self.labels[rows],
            self.ids[rows],
            self.digests[rows],
            self.preprocess,
        )

    def thinned(self, limit: int | None) -> "LabelledImages":
        """At most `limit` pictures, evenly spaced in the set; all of them where None."""
        if limit is None or limit >= len(self):
            return self
        return self.subset(np.arange(limit) * len(self) // limit)

    def with_preprocess(self, preprocess: ImagePreprocess) -> "LabelledImages":
        """The same pictures, prepared in another way (another size, say)."""
        return replace(self, preprocess=preprocess)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the raw pictures and labels, in order, not the preprocessing or ids."""
        lines = [f"{d} {n}" for d, n in zip(self.digests, self.labels, strict=True)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def content_key(self) -> str:
        """SHA-256 over all that decides the items: pictures, labels, ids and preprocessing."""
        parts = [self.fingerprint, self.preprocess.model_dump_json(), *map(str, self.ids)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _Chosen:
    """Some of the pictures of another set, in a chosen order."""

    pictures: Pictures
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Image.Image | NDArray[np.uint8]:
        return self.pictures[int(self.rows[index])]


def array_digests(pictures: NDArray[np.uint8]) -> NDArray[np.str_]:
    """SHA-256 of each picture's shape and bytes."""
    shape = str(pictures.shape[1:]).encode()
    return np.array([hashlib.sha256(shape + picture.tobytes()).hexdigest() for picture in pictures])
