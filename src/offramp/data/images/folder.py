"""Image files in one folder per class, checked in full before anything is trained on them."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from offramp.data.images.layout import ImageFile, list_split, list_unsplit
from offramp.data.images.pictures import ImageFiles, labelled_pictures
from offramp.data.images.settings import PictureSettings
from offramp.data.splits import SPLIT_NAMES, Splits, refuse_unreadable, thinned
from offramp.errors import DataError
from offramp.progress import Progress, silent
from offramp.spec import Spec

_log = logging.getLogger(__name__)
_NAMED = 3  # images that a warning names; it counts the others


class RandomSplit(Spec):
    """Shares of the images drawn at random for each split; the rest trains.

    Files with the same bytes always land in one split.

    Attributes:
        validation: Share, 0 to 1.
        calibration: Share, 0 to 1.
        test: Share, 0 to 1.
        seed: The same seed and files always give the same splits.
    """

    validation: float = Field(default=0.1, gt=0, lt=1)
    calibration: float = Field(default=0.2, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        taken = self.validation + self.calibration + self.test
        if taken >= 1:
            raise ValueError(f"the shares add up to {taken:g}, which leaves nothing to train on")
        return self

    def draw(self, digests: NDArray[np.str_]) -> NDArray[np.str_]:
        """Name of the split (N,) of each image, from the images' content alone."""
        contents, content = np.unique(digests, return_inverse=True)
        keys = [hashlib.sha256(f"{self.seed}/{one}".encode()).hexdigest() for one in contents]
        rank = np.argsort(np.argsort(keys))
        shares = (self.validation, self.calibration, self.test)
        edges = np.cumsum([round(share * len(contents)) for share in shares])
        names = np.array([*SPLIT_NAMES[1:], "train"])
        chosen: NDArray[np.str_] = names[np.searchsorted(edges, rank, side="right")][content]
        return chosen


class ImageFolder(PictureSettings):
    """Image files as root/SPLIT/CLASS/name.jpg, or root/CLASS/name.jpg with `split`.

    SPLIT is train, validation, calibration or test. Classes are numbered in the order of their
    names. JPEG, PNG, BMP, WebP and TIFF files are read.

    Attributes:
        root: The folder.
        split: None where the folder is already split.
        on_corrupt: "raise" refuses the folder when a file cannot be read; "skip" leaves such
            files out, with a warning for each.
        limit: Number of images kept of each split, for a quick trial; drawn at random, but
            each class keeps its share.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: Path
    split: RandomSplit | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """List and hash every file; pictures are decoded whenever they are read.

        Args:
            progress: Called after each file.
            check: Decode every picture once now, see `Splits.check`.

        Raises:
            DataError: The layout is wrong, classes differ between splits, a file cannot be read
                (unless skipped), or nothing is left of a split or class.
        """
        root = self.root.expanduser()
        listed = list_split(root) if self.split is None else list_unsplit(root)
        files, digests, skipped = self._hashed(root, listed, progress)
        names = [file.split for file in files]
        splits = np.array(names) if self.split is None else self.split.draw(digests)
        class_names = tuple(sorted({file.class_name for file in listed}))
        number = {name: place for place, name in enumerate(class_names)}
        labels = np.array([number[file.class_name] for file in files], np.int64)
        _check_present(root, splits, labels, class_names)
        ids = np.array([file.path.relative_to(root).as_posix() for file in files])
        _warn_of_shared(root, splits, digests, ids)
        pictures = ImageFiles(tuple(file.path for file in files), digests, self.exif)
        images = labelled_pictures(pictures, labels, self.preprocess, ids=ids)
        found = Splits.of(
            {
                name: thinned(images.subset(np.flatnonzero(splits == name)), self.limit)
                for name in SPLIT_NAMES
            },
            target_names=class_names,
            inputs=(self.preprocess,),
            origin=str(root),
            skipped=skipped,
        )
        if check and self.on_corrupt == "raise":
            found.check(progress)
        return found

    def _hashed(
        self, root: Path, files: Sequence[ImageFile], progress: Progress
    ) -> tuple[list[ImageFile], NDArray[np.str_], tuple[str, ...]]:
        """The files to use, SHA-256 of each, and a line on each that is skipped."""
        good: list[tuple[ImageFile, str]] = []
        faults: list[str] = []
        for done, file in enumerate(files):
            progress("reading images", done, len(files))
            try:
                good.append((file, self._digest(file.path)))
            except Exception as error:  # pillow's decoders raise many kinds
                faults.append(f"{file.path.relative_to(root).as_posix()}: {error}")
        progress("reading images", len(files), len(files))
        if self.on_corrupt == "raise":
            refuse_unreadable(faults, len(files), str(root))
        for fault in faults:
            _log.warning("left out, since it cannot be read: %s", fault)
        kept = [file for file, _ in good]
        return kept, np.array([digest for _, digest in good], np.str_), tuple(faults)

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, which is decoded first where bad ones are to be skipped."""
        content = path.read_bytes()
        if self.on_corrupt == "skip":
            self.preprocess.resize(content)
        return hashlib.sha256(content).hexdigest()


def _check_present(
    root: Path,
    splits: NDArray[np.str_],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> None:
    counts = Counter(splits.tolist())
    empty = [name for name in SPLIT_NAMES if not counts[name]]
    if empty:
        raise DataError(
            f"{' and '.join(empty)} would be empty: {root} has {len(splits)} images that can be "
            "read. Add images, or change the shares of `split`."
        )
    trained = set(labels[splits == "train"].tolist())
    unseen = [name for number, name in enumerate(class_names) if number not in trained]
    if unseen:
        raise DataError(
            f"no image of {', '.join(unseen)} in {root} is left to train on. Add images of it, or "
            "remove the class."
        )


def _warn_of_shared(
    root: Path, splits: NDArray[np.str_], digests: NDArray[np.str_], ids: NDArray[np.str_]
) -> None:
    """Say so when one image is in several splits: results on it would look too good."""
    pairs = {*zip(splits.tolist(), digests.tolist(), strict=True)}
    counts = Counter(digest for _, digest in pairs)
    shared = sorted(digest for digest, count in counts.items() if count > 1)
    if shared:
        named = [" = ".join(ids[digests == digest].tolist()) for digest in shared[:_NAMED]]
        number = "1 image is" if len(shared) == 1 else f"{len(shared)} images are"
        _log.warning(
            "%s: %s in more than one split, so results there look too good: %s%s. Keep each in "
            "one split.",
            *(root, number, ", ".join(named), ", ..." if len(shared) > _NAMED else ""),
        )
