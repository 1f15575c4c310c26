"""Fashion-MNIST: the subset shipped with the package, or the official files."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from offramp.data.images.idx import read_idx
from offramp.data.images.pictures import labelled_pictures
from offramp.data.samples import Samples
from offramp.data.splits import SPLIT_NAMES, Splits, thinned
from offramp.errors import DataError
from offramp.preprocess import Deviation, ImagePreprocess, Mean
from offramp.progress import Progress, silent
from offramp.spec import Spec

SHIPPED = Path(__file__).parents[1] / "fashion_mnist"
_PART = {"train": "train", "validation": "train", "calibration": "train", "test": "t10k"}

Raw = tuple[NDArray[np.uint8], NDArray[np.int64]]


class Drawn(NamedTuple):
    """One split of Fashion-MNIST.

    Attributes:
        images: Shape (N, 28, 28).
        labels: Shape (N,).
        ids: Shape (N,): the official file ("train" or "t10k") and the place in it.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.str_]


class FashionMNIST(Spec):
    """Photographs of clothes, 28x28 grey, 10 classes (Zalando Research, MIT licence).

    Attributes:
        root: None reads the shipped subset: 8,000 training, 2,000 validation, 5,000 calibration
            and 2,000 test images. A folder with the official files (plain or gzipped) gives the
            50,000 training images the shipped backbone was trained on, validation and calibration
            as shipped, and all 10,000 test images.
        image_size: Side of the square the backbone reads, in pixels; grey becomes 3 channels.
        mean: Per channel, on the [0, 1] scale.
        std: Per channel, on the [0, 1] scale.
        limit: Number of images kept of each split, for a quick trial; drawn at random, but
            each class keeps its share.
    """

    kind: Literal["fashion_mnist"] = "fashion_mnist"
    root: Path | None = None
    image_size: PositiveInt = 112
    mean: tuple[Mean, Mean, Mean] = (0.5, 0.5, 0.5)
    std: tuple[Deviation, Deviation, Deviation] = (0.5, 0.5, 0.5)
    limit: PositiveInt | None = None

    @property
    def inputs(self) -> tuple[ImagePreprocess]:
        """Preprocessing of each input of the backbone."""
        return (self.preprocess,)

    @property
    def preprocess(self) -> ImagePreprocess:
        """Preprocessing of an image."""
        return ImagePreprocess(
            height=self.image_size, width=self.image_size, mean=self.mean, std=self.std
        )

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """Read all four splits into memory, as bytes, which checks the files in any case.

        Raises:
            DataError: A file is missing or damaged, or `root` does not hold Fashion-MNIST.
        """
        progress("reading images", 0, 1)
        drawn, class_names = read_drawn(SHIPPED, self.root and self.root.expanduser())
        parts = {name: self._images(part) for name, part in drawn.items()}
        progress("reading images", 1, 1)
        return Splits.of(
            parts,
            target_names=class_names,
            inputs=self.inputs,
            origin=str(self.root or SHIPPED),
        )

    def _images(self, drawn: Drawn) -> Samples:
        whole = labelled_pictures(drawn.images, drawn.labels, self.preprocess, ids=drawn.ids)
        return thinned(whole, self.limit)


def read_drawn(shipped: Path, root: Path | None) -> tuple[dict[str, Drawn], tuple[str, ...]]:
    """The images of each split, and the names of the classes.

    Args:
        shipped: Folder with `splits.json` and the drawn images.
        root: Folder with the official files, or None to take only the drawn images.
    """
    record = json.loads((shipped / "splits.json").read_text(encoding="utf-8"))
    raw = {name: _read(shipped, name) for name in SPLIT_NAMES}
    places = {name: np.array(record["indices"][name]) for name in SPLIT_NAMES}
    if root is not None:
        official = {part: _read(root, part) for part in ("train", "t10k")}
        _check_official(root, official, record, raw)
        held_out = record["indices"]["held_out"]
        places["train"] = np.setdiff1d(np.arange(len(official["train"][1])), held_out)
        places["test"] = np.arange(len(official["t10k"][1]))
        for name in ("train", "test"):
            images, labels = official[_PART[name]]
            raw[name] = images[places[name]], labels[places[name]]
    drawn = {
        name: Drawn(*raw[name], np.array([f"{_PART[name]}/{place}" for place in places[name]]))
        for name in SPLIT_NAMES
    }
    return drawn, tuple(record["class_names"])


def _read(folder: Path, part: str) -> Raw:
    """Images (N, 28, 28) and labels (N,) of one part, from plain or gzipped files."""
    images = read_idx(_file(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_file(folder, f"{part}-labels-idx1-ubyte"))
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{folder} holds {part} images of shape {images.shape} but labels of shape "
            f"{labels.shape}. Fetch both files again, from one source."
        )
    return images, labels.astype(np.int64)


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _check_official(
    root: Path, official: dict[str, Raw], record: dict[str, Any], shipped: dict[str, Raw]
) -> None:
    """Refuse files that are not the Fashion-MNIST the shipped splits were drawn from."""
    for part, (images, _) in official.items():
        digests = "".join(hashlib.sha256(image.tobytes()).hexdigest() for image in images)
        if hashlib.sha256(digests.encode()).hexdigest() != record["official_sha256"][part]:
            raise DataError(
                f"the {part} images in {root} are not Fashion-MNIST's: their hash differs from the "
                "one recorded with the splits. Other sets in the same format (MNIST, KMNIST) have "
                "the same file names; fetch Fashion-MNIST, or use another data kind."
            )
    for name, (_, labels) in shipped.items():
        if not np.array_equal(official[_PART[name]][1][record["indices"][name]], labels):
            raise DataError(
                f"the {_PART[name]} labels in {root} are not Fashion-MNIST's: they differ from the "
                "labels that offramp ships for the same images. Fetch the labels file again."
            )
