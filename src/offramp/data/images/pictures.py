"""Pictures as samples: raw ones with labels, prepared when they are read."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from offramp.data.samples import Batch, Samples, Source
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess, decode_image


class Pictures(Protocol):
    """Raw pictures by number, each still the one whose digest was taken when it is read."""

    @property
    def digests(self) -> NDArray[np.str_]:
        """(N,) SHA-256 of each picture's raw content."""

    @property
    def in_files(self) -> bool:
        """Whether pictures are decoded from files when they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Image.Image | NDArray[np.uint8]: ...


class PictureArray:
    """Pictures in memory: uint8 (N, H, W) or (N, H, W, C)."""

    in_files = False

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._pixels = pixels
        self.digests: NDArray[np.str_] = np.array([_digest(picture) for picture in pixels])

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._pixels[index]
        if _digest(picture) != self.digests[index]:
            raise DataError(
                f"picture {index} of an array has changed since the array was given, and what was "
                "computed from it would be kept as that of the old one. Leave the array alone "
                "while it is in use."
            )
        return picture


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Pictures that are read from their files each time, which must stay as they were.

    Attributes:
        digests: (N,) SHA-256 of each file when it was listed.
        exif: As in ImagePreprocess.
    """

    in_files: ClassVar[bool] = True

    paths: tuple[Path, ...]
    digests: NDArray[np.str_]
    exif: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        path = self.paths[index]
        try:
            content = path.read_bytes()
            same = hashlib.sha256(content).hexdigest() == self.digests[index]
            if same:
                return decode_image(content, exif=self.exif)
        except Exception as error:  # pillow's decoders raise many kinds
            raise DataError(
                f"{path} cannot be read: {error}. Repair or remove it, and leave the images alone "
                "while they are in use."
            ) from error
        raise DataError(
            f"{path} has changed since its folder was loaded, and what was computed from it would "
            "be kept as that of the old file. Leave the images alone while they are in use, and "
            "start again."
        )


class PictureSource(Source):
    """Pictures with a target each, made the backbone's input when they are read."""

    threadsafe = True
    finite = True  # made from bytes; the bounds of the preprocessing keep them so

    def __init__(
        self,
        pictures: Pictures,
        targets: NDArray[Any],
        preprocess: ImagePreprocess,
    ) -> None:
        if len(pictures) != len(targets):
            raise ShapeError(
                f"{len(pictures)} pictures come with {len(targets)} labels. Give one each."
            )
        self.pictures, self.preprocess, self._targets = pictures, preprocess, targets
        self.may_fail = pictures.in_files

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
        return self.pictures.digests

    @property
    def settings(self) -> str:
        """See Source."""
        return self.preprocess.model_dump_json(exclude_defaults=True)  # a new one moves no key

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return (self.preprocess.shape,)


def labelled_pictures(
    pictures: Pictures | NDArray[np.uint8],
    labels: NDArray[Any],
    preprocess: ImagePreprocess,
    *,
    ids: NDArray[np.str_] | None = None,
    groups: NDArray[np.str_] | None = None,
    clusters: NDArray[np.str_] | None = None,
) -> Samples:
    """Pictures with one class number or value each, as samples.

    Args:
        pictures: An array (N, H, W) or (N, H, W, C), or raw pictures that are read on demand.
        labels: (N,) int64 class numbers or float32 values.
        preprocess: What makes a picture the backbone's input.
        ids: (N,) a stable name of each picture.
        groups: (N,) what each picture belongs to.
        clusters: (N,) the source of each picture.

    Raises:
        ShapeError: There is not one label and id for each picture.
        DataError: There are no pictures.
    """
    raw = PictureArray(pictures) if isinstance(pictures, np.ndarray) else pictures
    source = PictureSource(raw, labels, preprocess)
    return Samples.of(source, ids=ids, groups=groups, clusters=clusters)


def at_size(samples: Samples, side: int) -> Samples:
    """The same part of the same pictures, prepared with this shorter side in pixels.

    Raises:
        DataError: The samples are not pictures.
    """
    source = samples.source
    if not isinstance(source, PictureSource):
        raise DataError("only pictures can be prepared at another size. Leave `rival_sizes` empty.")
    preprocess = source.preprocess.with_shorter_side(side)
    other = PictureSource(source.pictures, source.targets, preprocess)
    return replace(samples, source=other)


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
