"""PictureFiles: checking, drawing and loading of picture files that some kind of data lists."""

import hashlib
import logging
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, field_validator

from offramp.data.drawing import (
    HeldOut,
    RandomSplit,
    complete,
    drawn,
    matching,
    warn_of_training,
)
from offramp.data.images.listing import Listing
from offramp.data.images.pictures import ImageFiles, labelled_pictures
from offramp.data.images.settings import PictureSettings
from offramp.data.splits import SPLIT_NAMES, Splits, refuse_unreadable, thinned
from offramp.errors import DataError
from offramp.progress import Progress, silent

_log = logging.getLogger(__name__)
_NAMED = 3  # images that a warning names; it counts the others


class PictureFiles(PictureSettings):
    """How listed files are checked and divided, the same for every kind of data with files.

    Attributes:
        held_out: Shares to draw from the held-out pictures where some splits have none.
        trained_on: Folders, or patterns of paths such as `*/2023-*`, whose pictures trained the
            backbone; a warning says where calibration or test pictures are among them.
        classes: Names of the classes in the backbone's order; None takes those that are there, in
            the order of their names. A split may lack a class that is listed here.
        on_corrupt: "raise" refuses the data when a file cannot be read; "skip" leaves such
            files out, with a warning for each.
        limit: Number of images kept of each split, for a quick trial; drawn at random, but
            each class keeps its share.
    """

    held_out: HeldOut = HeldOut()
    trained_on: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len({*classes}) < len(classes):
            raise ValueError("names a class twice")
        return classes

    @abstractmethod
    def listing(self) -> Listing:
        """The files, none of them opened."""

    def load(self, progress: Progress = silent, *, check: bool = True) -> Splits:
        """List and hash every file; pictures are decoded whenever they are read.

        Args:
            progress: Called after each file.
            check: Decode every picture once now, see `Splits.check`.

        Raises:
            DataError: The listing is wrong, classes differ between splits, a file cannot be read
                (unless skipped), or nothing is left of a split or class.
        """
        listed = self.listing()
        files, digests, skipped = self._hashed(listed, progress)
        splits = self._divided(files, listed.there, digests)
        _check_present(files, splits, all_classes=self.classes is None)
        _warn_of_shared(files, splits, digests)
        warn_of_training(splits, digests, matching(files.ids, self.trained_on))
        images = labelled_pictures(
            ImageFiles(tuple(files.paths), digests, self.exif),
            files.targets,
            self.preprocess,
            ids=files.ids,
            groups=files.groups,
            clusters=files.sources,
        )
        found = Splits.of(
            {
                name: thinned(images.subset(np.flatnonzero(splits == name)), self.limit)
                for name in SPLIT_NAMES
            },
            target_names=files.target_names,
            inputs=self.inputs,
            task=files.task,
            origin=str(files.origin),
            skipped=skipped,
        )
        if check and self.on_corrupt == "raise":
            found.check(progress)
        return found

    def _divided(
        self, files: Listing, there: set[str], digests: NDArray[np.str_]
    ) -> NDArray[np.str_]:
        """The split (N,) of each file; those that are not `there` are drawn."""
        facts = digests, files.strata, files.sources
        if isinstance(files.splits, RandomSplit):
            return drawn(files.splits.shares, files.splits.seed, *facts)
        return complete(files.splits, there, self.held_out, *facts)

    def _hashed(
        self, listed: Listing, progress: Progress
    ) -> tuple[Listing, NDArray[np.str_], tuple[str, ...]]:
        """The files to use, SHA-256 of each, and a line on each that is skipped."""
        good: list[int] = []
        digests: list[str] = []
        faults: list[str] = []
        for row, path in enumerate(listed.paths):
            progress("reading images", row, len(listed))
            try:
                digests.append(self._digest(path))
                good.append(row)
            except Exception as error:  # pillow's decoders raise many kinds
                faults.append(f"{listed.ids[row]}: {error}")
        progress("reading images", len(listed), len(listed))
        if self.on_corrupt == "raise":
            refuse_unreadable(faults, len(listed), str(listed.origin))
        for fault in faults:
            _log.warning("left out, since it cannot be read: %s", fault)
        return listed.kept(good), np.array(digests, np.str_), tuple(faults)

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, which is decoded first where bad ones are to be skipped."""
        content = path.read_bytes()
        if self.on_corrupt == "skip":
            self.preprocess.resize(content)
        return hashlib.sha256(content).hexdigest()


def _check_present(files: Listing, splits: NDArray[np.str_], *, all_classes: bool) -> None:
    counts = Counter(splits.tolist())
    empty = [name for name in SPLIT_NAMES if not counts[name]]
    if empty:
        raise DataError(
            f"{', '.join(empty)} would be empty: {files.origin} has {len(splits)} images that "
            "can be read. Add images, or change the shares of `split`."
        )
    unseen = files.untrained(splits) if all_classes else []
    if unseen:
        raise DataError(
            f"no image of {', '.join(unseen)} in {files.origin} is left to train on. Add images "
            "of it, or remove the class."
        )


def _warn_of_shared(files: Listing, splits: NDArray[np.str_], digests: NDArray[np.str_]) -> None:
    """Warn if an image is in several splits, since results on it would look too good."""
    pairs = {*zip(splits.tolist(), digests.tolist(), strict=True)}
    counts = Counter(digest for _, digest in pairs)
    shared = sorted(digest for digest, count in counts.items() if count > 1)
    if shared:
        named = [" = ".join(files.ids[digests == digest].tolist()) for digest in shared[:_NAMED]]
        number = "1 image is" if len(shared) == 1 else f"{len(shared)} images are"
        _log.warning(
            "%s: %s in more than one split, so results there look too good: %s%s. Keep each in "
            "one split.",
            *(files.origin, number, ", ".join(named), ", ..." if len(shared) > _NAMED else ""),
        )
