"""CrowdSource: crowds as samples with counts, and where people are as density maps."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from offramp.data.crowds.degradation import Degradation, DegradedImages
from offramp.data.crowds.heads import density, read_map, resized
from offramp.data.density import DensitySource
from offramp.data.prepared import Files, PreparedSource, SoundFiles, joined_digests
from offramp.errors import DataError, ShapeError
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess

TEXT = ".txt"
"""Ending of a file of dots; any other is a MATLAB file."""
CELL = 8
"""Pixels of the input that a cell of a density map is high and wide, as AudioCSRNet's are."""


class CrowdSource(PreparedSource, DensitySource):
    """Pictures and their sounds, with counts as targets, and the density maps that they are from.

    Attributes:
        degradation: What is done to the pictures.
    """

    def __init__(
        self,
        paths: NDArray[np.object_],
        digests: NDArray[np.str_],
        counts: NDArray[np.float32],
        inputs: tuple[ImagePreprocess, SpectrogramPreprocess],
        *,
        names: NDArray[np.str_],
        degradation: Degradation | None = None,
    ) -> None:
        """Give paths and digests (N, 3) of pictures, sounds and maps, in this order."""
        pictures = DegradedImages(  # maps belong to the pixels as they are stored
            tuple(paths[:, 0]), digests[:, 0], exif=False, names=names, degradation=degradation
        )
        sounds = SoundFiles(tuple(paths[:, 1]), digests[:, 1], inputs[1].rate)
        super().__init__([pictures, sounds], counts, inputs)
        self.degradation = degradation
        self._files = Files(tuple(paths[:, 2]), digests[:, 2])
        self._pictures: Sequence[Path] = pictures.paths
        self._resized: dict[int, NDArray[np.float32]] = {}

    @property
    def digests(self) -> NDArray[np.str_]:
        """See Source; maps count too."""
        return joined_digests([*(each.digests for each in self.raw), self._files.digests])

    @property
    def settings(self) -> str:
        """See Source."""
        own = (
            ""
            if self.degradation is None
            else self.degradation.model_dump_json(exclude_defaults=True)
        )
        return f"{super().settings}\n{own}"

    @property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of every density map: a cell is 8 x 8 pixels of the picture.

        Raises:
            ShapeError: The picture that the backbone reads does not divide into such cells.
        """
        height, width = self.input_shapes[0][1:]
        if height % CELL or width % CELL:
            raise ShapeError(
                f"a picture of {height} x {width} pixels cannot be divided evenly into a density "
                f"map's cells of {CELL} x {CELL} pixels. Set `image_size` to multiples of {CELL}."
            )
        return height // CELL, width // CELL

    def maps(self, rows: NDArray[np.int64]) -> Tensor:
        """Density maps (B, H / 8, W / 8) of some samples, float32, whose sums are their targets.

        Each is read from its file once, and kept: 37 kB for a picture of 576 x 1024.

        Raises:
            DataError: A file has changed since it was listed.
            ShapeError: As `map_shape`.
        """
        return torch.from_numpy(np.stack([self._map(int(row)) for row in rows]))

    def _map(self, row: int) -> NDArray[np.float32]:
        if row not in self._resized:
            size = size_of(self._pictures[row].read_bytes())
            text = self._files.paths[row].suffix == TEXT
            found = self._files.decoded(row, lambda content: read_map(content, size, text=text))
            self._resized[row] = resized(density(found), *self.map_shape).astype(np.float32)
        return self._resized[row]


def size_of(content: bytes) -> tuple[int, int]:
    """Height and width of a picture as it is stored, in pixels, from the head of its file.

    Raises:
        DataError: It is not a picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.height, picture.width
    except UnidentifiedImageError as error:
        raise DataError("its content is not a picture of a known format") from error
