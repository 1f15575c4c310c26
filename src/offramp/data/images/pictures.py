"""Pictures as samples: raw ones with labels, prepared when they are read."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from offramp.data.prepared import Files, PreparedSource, Raw
from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.preprocess import ImagePreprocess, decode_image


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
                f"picture {index} of an array has changed since the array was given, so features "
                "of the new picture would be stored as those of the old one. Do not change the "
                "array while it is in use."
            )
        return picture


@dataclass(frozen=True, eq=False)
class ImageFiles(Files):
    """Pictures that are read from their files each time.

    Attributes:
        exif: As in ImagePreprocess.
    """

    exif: bool = True

    def __getitem__(self, index: int) -> Image.Image:
        return self.decoded(index, lambda content: decode_image(content, exif=self.exif))


class PictureSource(PreparedSource):
    """Pictures with a target each, preprocessed when they are read."""

    def __init__(self, pictures: Raw, targets: NDArray[Any], preprocess: ImagePreprocess) -> None:
        super().__init__([pictures], targets, [preprocess])
        self.pictures, self.preprocess = pictures, preprocess


def labelled_pictures(
    pictures: Raw | NDArray[np.uint8],
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
        preprocess: Preprocessing of a picture.
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
