"""Foreign pictures: pictures without labels from another domain, for copycat training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from offramp.arguments import check_kind
from offramp.data.images.pictures import PictureArray, labelled_pictures
from offramp.data.published import is_stand_in
from offramp.data.samples import Samples
from offramp.data.splits import refuse_unreadable
from offramp.errors import DataError
from offramp.preprocess import ImagePreprocess
from offramp.preprocess.media import IMAGES, visible_entries
from offramp.progress import Progress, silent
from offramp.spec import Spec


@dataclass(frozen=True, eq=False)
class ForeignPictures:
    """N small pictures without labels, which a network's answers to them become (copycat).

    Attributes:
        pictures: The pictures, uint8 (side, side, C) each. `pictures.digests` are SHA-256 of their
            pixels, as of any pictures in memory, such as CIFAR's.
        preprocess: What makes the backbone's input of a small picture.
        ids: (N,) path of each below its folder.
        file_digests: (N,) SHA-256 of each file.
        skipped: Files that could not be read and were left out, with the reason.
        stand_in: Whether the files only stand in for a published data set.
    """

    pictures: PictureArray
    preprocess: ImagePreprocess
    ids: NDArray[np.str_]
    file_digests: NDArray[np.str_]
    skipped: tuple[str, ...] = ()
    stand_in: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, rows: Sequence[int]) -> Tensor:
        """The backbone's inputs (B, C, H, W) of the pictures at these places."""
        return torch.from_numpy(self.preprocess.batch([self.pictures[int(row)] for row in rows]))

    def are_in(self, samples: Samples) -> NDArray[np.bool_]:
        """(N,) whether each is one of these samples, such as those of a test.

        It is if the samples have its file, or are pictures in memory with its pixels. Another
        version of the same photograph is not found.
        """
        digests = samples.digests
        return np.isin(self.file_digests, digests) | np.isin(self.pictures.digests, digests)

    def labelled(self, labels: NDArray[Any]) -> Samples:
        """The pictures as samples with these labels: classes (N,) or probabilities (N, K).

        Raises:
            ShapeError: There is not one label for each picture.
        """
        return labelled_pictures(self.pictures, labels, self.preprocess, ids=self.ids)


class ForeignFolder(Spec):
    """Pictures in a folder and in those below it, whatever they show, such as Tiny ImageNet.

    All image files are read, except hidden ones and those in linked folders. From each the centred
    square is taken and resized to a few pixels, as the paper does with Tiny ImageNet (section 4.4);
    N of them take N * side * side * channels bytes of memory, 0.3 GB for 100,000 in colour.

    Attributes:
        root: The folder.
        side: Side of the square in pixels.
        limit: Number of pictures to draw; None takes all.
        seed: Seed of the draw.
        on_corrupt: "raise" refuses the folder when a picture cannot be read; "skip" leaves such
            pictures out.
    """

    root: Path
    side: PositiveInt = 32
    limit: PositiveInt | None = None
    seed: NonNegativeInt = 0
    on_corrupt: Literal["raise", "skip"] = "raise"

    def load(self, preprocess: ImagePreprocess, progress: Progress = silent) -> ForeignPictures:
        """Read and resize the pictures.

        Args:
            preprocess: What makes the backbone's input of a small picture. Its `channels`,
                `interpolation` and `exif` also hold for the first resize.
            progress: Called after each picture.

        Raises:
            DataError: The folder is missing or has no pictures, or one of them cannot be read.
            ArgumentError: `preprocess` is something else, such as a transform of torchvision.
        """
        remedy = (
            "Give an offramp.preprocess.ImagePreprocess, such as `preprocess` of a plan's data."
        )
        check_kind(preprocess, ImagePreprocess, "preprocess", remedy)
        root = self.root.expanduser()
        paths = self._drawn(root)
        changed = {"height": self.side, "width": self.side, "resize_to": None, "crop": 1.0}
        small = preprocess.model_copy(update=changed)
        pixels = np.empty((len(paths), self.side, self.side, small.channels), np.uint8)
        ids: list[str] = []
        digests: list[str] = []
        faults: list[str] = []
        for number, path in enumerate(paths):
            progress("reading pictures", number, len(paths))
            name = path.relative_to(root).as_posix()
            try:
                content = path.read_bytes()
                pixels[len(ids)] = small.resize(content)
            except Exception as error:  # decoders raise many kinds
                faults.append(f"{name}: {error}")
                continue
            ids.append(name)
            digests.append(sha256(content).hexdigest())
        progress("reading pictures", len(paths), len(paths))
        if self.on_corrupt == "raise" or not ids:
            refuse_unreadable(faults, len(paths), str(root))
        return ForeignPictures(
            PictureArray(pixels[: len(ids)]),
            preprocess,
            np.array(ids, np.str_),
            np.array(digests, np.str_),
            tuple(faults),
            is_stand_in(root),
        )

    def _drawn(self, root: Path) -> list[Path]:
        paths = [*_pictures_below(root)]
        if not paths:
            raise DataError(
                f"{root} and the folders below it hold no pictures ({', '.join(IMAGES.endings)}). "
                "Check `root`."
            )
        if self.limit is None or self.limit >= len(paths):
            return paths
        chosen = np.random.default_rng(self.seed).choice(len(paths), self.limit, replace=False)
        return [paths[place] for place in sorted(chosen.tolist())]


def _pictures_below(folder: Path) -> Iterator[Path]:
    for entry in visible_entries(folder):
        if entry.is_dir():
            if not entry.is_symlink():  # which may lead back to where it is
                yield from _pictures_below(entry)
        elif entry.suffix.lower() in IMAGES.endings:
            yield entry
