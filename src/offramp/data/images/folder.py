"""Image files in one folder per class, checked in full before anything is trained on them."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
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
from offramp.data.images.layout import ImageFile, list_split, list_unsplit
from offramp.data.images.pictures import ImageFiles, labelled_pictures
from offramp.data.images.settings import PictureSettings
from offramp.data.splits import SPLIT_NAMES, Splits, refuse_unreadable, thinned
from offramp.errors import DataError
from offramp.progress import Progress, silent

_log = logging.getLogger(__name__)
_NAMED = 3  # images that a warning names; it counts the others


class ImageFolder(PictureSettings):
    """Image files as root/SPLIT/CLASS/name.jpg, or root/CLASS/name.jpg with `split`.

    SPLIT is train, validation (or val), calibration or test. Where only train and val are there,
    the other splits are drawn from val; train and test, from test. JPEG, PNG, BMP, WebP and TIFF
    files are read.

    Attributes:
        root: The folder.
        split: Shares to draw where the folder is not split; None where it is.
        held_out: Shares to draw from the held-out pictures where some splits have no folder.
        source: Regular expression with one group, searched in each file's path below `root`; what
            the group matches names the picture's source, such as a film or a patient. Pictures of
            one source are drawn into one split, and promises count sources, not pictures.
        trained_on: Folders below `root`, or patterns such as `*/2023-*`, whose pictures trained the
            backbone; a warning says where calibration or test pictures are among them.
        classes: Names of the classes in the backbone's order; None takes the folders by name. A
            split may lack a class that is listed here.
        on_corrupt: "raise" refuses the folder when a file cannot be read; "skip" leaves such
            files out, with a warning for each.
        limit: Number of images kept of each split, for a quick trial; drawn at random, but
            each class keeps its share.
    """

    kind: Literal["image_folder"] = "image_folder"
    root: Path
    split: RandomSplit | None = None
    held_out: HeldOut = HeldOut()
    source: str | None = None
    trained_on: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    on_corrupt: Literal["raise", "skip"] = "raise"
    limit: PositiveInt | None = None

    @field_validator("source")
    @classmethod
    def _one_group(cls, source: str | None) -> str | None:
        try:
            groups = 1 if source is None else re.compile(source).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"needs one group in parentheses, and has {groups}")
        return source

    @field_validator("classes")
    @classmethod
    def _each_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len({*classes}) < len(classes):
            raise ValueError("names a class twice")
        return classes

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
        lists = list_split if self.split is None else list_unsplit
        listed = lists(root, self.classes)
        files, digests, skipped = self._hashed(root, listed, progress)
        class_names = self.classes or tuple(sorted({file.class_name for file in listed}))
        number = {name: place for place, name in enumerate(class_names)}
        labels = np.array([number[file.class_name] for file in files], np.int64)
        ids = np.array([file.path.relative_to(root).as_posix() for file in files], np.str_)
        sources = self._sources(ids)
        if self.split is not None:
            splits = drawn(self.split.shares, self.split.seed, digests, labels, sources)
        else:
            given, there = np.array([file.split for file in files]), {f.split for f in listed}
            splits = complete(given, there, self.held_out, digests, labels, sources)
        _check_present(root, splits, labels, class_names, listed=self.classes is not None)
        _warn_of_shared(root, splits, digests, ids)
        warn_of_training(splits, digests, matching(ids, self.trained_on))
        pictures = ImageFiles(tuple(file.path for file in files), digests, self.exif)
        images = labelled_pictures(pictures, labels, self.preprocess, ids=ids, clusters=sources)
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

    def _sources(self, ids: NDArray[np.str_]) -> NDArray[np.str_] | None:
        if self.source is None:
            return None
        found = [re.search(self.source, name) for name in ids]
        missed = [str(name) for name, match in zip(ids, found, strict=True) if match is None]
        if missed:
            raise DataError(
                f"`source` ({self.source}) matches nothing in {len(missed)} of {len(ids)} paths, "
                f"such as {missed[0]}. Change the expression, or leave it out."
            )
        return np.array([match[1] for match in found if match is not None], np.str_)

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
    *,
    listed: bool,
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
    if unseen and not listed:
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
