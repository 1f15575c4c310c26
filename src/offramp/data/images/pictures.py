"""Pictures as samples: raw ones with labels, prepared when they are read."""

import hashlib
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from offramp.data.samples import Batch, Samples, Source
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess


class Pictures(Protocol):
    """Pictures by number: an array (N, H, W) or (N, H, W, C) of uint8, or files read on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image.Image | NDArray[np.uint8]: ...


class PictureSource(Source):
    """Pictures with a target each, made the backbone's input when they are read."""

    threadsafe = True
    finite = True  # made from bytes; the bounds of the preprocessing keep them so

    def __init__(
        self,
        pictures: Pictures,
        targets: NDArray[Any],
        digests: NDArray[np.str_],
        preprocess: ImagePreprocess,
    ) -> None:
        if len({len(pictures), len(targets), len(digests)}) != 1:
            raise ShapeError(
                f"{len(pictures)} pictures come with {len(targets)} labels and {len(digests)} "
                "digests. Give one each."
            )
        self.pictures, self.preprocess = pictures, preprocess
        self._targets, self._digests = targets, digests

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source."""
        values = self.preprocess.batch([self.pictures[int(row)] for row in rows])
        return Batch((torch.from_numpy(values),), torch.from_numpy(self._targets[rows]), rows)

    @property
    def targets(self) -> NDArray[Any]:
        """See Source."""
        return self._targets

    @property
    def digests(self) -> NDArray[np.str_]:
        """See Source."""
        return self._digests

    @property
    def settings(self) -> str:
        """See Source."""
        return self.preprocess.model_dump_json()

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return (self.preprocess.shape,)


def labelled_pictures(
    pictures: Pictures,
    labels: NDArray[Any],
    preprocess: ImagePreprocess,
    *,
    ids: NDArray[np.str_] | None = None,
    digests: NDArray[np.str_] | None = None,
) -> Samples:
    """Pictures with one class number or value each, as samples.

    Args:
        pictures: The raw pictures.
        labels: (N,) int64 class numbers or float32 values.
        preprocess: What makes a picture the backbone's input.
        ids: (N,) a stable name of each picture.
        digests: (N,) SHA-256 of each picture's raw content; of its pixels where None.

    Raises:
        ShapeError: There is not one label, id and digest for each picture.
        DataError: There are no pictures.
    """
    known = array_digests(pictures) if digests is None else digests
    return Samples.of(PictureSource(pictures, labels, known, preprocess), ids=ids)


def at_size(samples: Samples, height: int, width: int) -> Samples:
    """The same pictures, prepared at another size.

    Raises:
        DataError: The samples are not pictures.
    """
    source = samples.source
    if not isinstance(source, PictureSource):
        raise DataError("only pictures can be prepared at another size. Leave `rival_sizes` empty.")
    preprocess = source.preprocess.model_copy(update={"height": height, "width": width})
    other = PictureSource(source.pictures, source.targets, source.digests, preprocess)
    return replace(samples, source=other)


def array_digests(pictures: Pictures) -> NDArray[np.str_]:
    """SHA-256 of each picture's shape and pixels."""
    arrays = (np.asarray(pictures[index]) for index in range(len(pictures)))
    return np.array([_array_digest(array) for array in arrays])


def _array_digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
