"""Tiny ImageNet, as its published archive unpacks."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from offramp.data.images.files import PictureFiles
from offramp.data.listing import Listing
from offramp.data.published import check_sizes, is_stand_in, read_lines
from offramp.data.splits import first_few
from offramp.errors import DataError
from offramp.preprocess.media import IMAGES, visible_entries

FOLDER = "tiny-imagenet-200"
"""What the archive unpacks to."""
_ARCHIVE = f"{FOLDER}.zip"
_CLASSES = "wnids.txt"
_SIZES = {_CLASSES: 200, "train": 100_000, "val": 10_000, "test": 10_000}
_PER_CLASS = 500  # in train
_NAMED = 3  # classes that an error names


class TinyImageNet(PictureFiles):
    """Tiny ImageNet (Stanford CS231n, 2015): 64x64 pixels, 200 of the classes of ImageNet.

    The 500 pictures of each class in `train` are for training. The 50 of each class in `val` are
    divided as `held_out` says. The 10,000 pictures in `test` have no published labels: they are
    counted, not read.

    Attributes:
        root: The folder `tiny-imagenet-200`, to which the archive is unpacked, or the one it is in.
        classes: WordNet ids of all classes in the backbone's order; None is the order of these ids,
            as in torchvision's ImageFolder.
    """

    kind: Literal["tiny_imagenet"] = "tiny_imagenet"
    root: Path

    def listing(self) -> Listing:
        """See ListedFiles; classes are called by their first name in words.txt.

        Raises:
            DataError: A file or folder is missing, the files do not fit each other, or the data set
                is not complete.
        """
        folder = _folder(self.root.expanduser())
        ids = self._in_order(folder, _wordnet_ids(folder))
        train, validation = _training(folder, ids), _validation(folder, ids)
        _check_whole(folder, ids, train, validation)
        files = [*train, *validation]
        numbers = {name: number for number, name in enumerate(ids)}
        return Listing(
            folder,
            np.array([path for path, _ in files], object)[:, None],
            np.array([path.relative_to(folder).as_posix() for path, _ in files], np.str_),
            np.array([numbers[name] for _, name in files], np.int64),
            _names(folder, ids),
            np.repeat(["train", "validation"], [len(train), len(validation)]),
            stand_in=is_stand_in(folder),
        )

    def _in_order(self, folder: Path, ids: set[str]) -> tuple[str, ...]:
        if self.classes is None:
            return tuple(sorted(ids))
        given = {*self.classes}
        if given != ids:
            parts = {"lacks": ids - given, "has the unknown": given - ids}
            texts = [f"{verb} {_some(names)}" for verb, names in parts.items() if names]
            raise DataError(
                f"`classes` {' and '.join(texts)}. List each WordNet id of {folder / _CLASSES} "
                "once, in the order of the backbone's outputs."
            )
        return self.classes


def _folder(root: Path) -> Path:
    """Where the archive was unpacked."""
    found = next((each for each in (root, root / FOLDER) if (each / _CLASSES).is_file()), None)
    if found is not None:
        return found
    archive = root / _ARCHIVE
    advice = f"Fetch {_ARCHIVE} and unpack it"
    if archive.is_file():
        advice = f"Unpack {archive}: python -m zipfile -e {archive} {root}"
    raise DataError(f"{root} holds no folder {FOLDER} with {_CLASSES}. {advice}.")


def _wordnet_ids(folder: Path) -> set[str]:
    """The ids of the classes, each of which is a folder of training pictures."""
    listed = {*read_lines(folder / _CLASSES, _ARCHIVE)}
    there = {each.name for each in _entries(folder / "train") if each.is_dir()}
    lacking = {"train": listed - there, _CLASSES: there - listed}
    if faults := [f"{name} lacks {_some(ids)}" for name, ids in lacking.items() if ids]:
        raise DataError(f"in {folder}, {' and '.join(faults)}. Unpack {_ARCHIVE} again.")
    return listed


def _names(folder: Path, ids: Sequence[str]) -> tuple[str, ...]:
    """The first name of each class, or its id if another class has the same name.

    Lines are `n02123045<tab>tabby, tabby cat`, for many more classes than there are pictures of.
    """
    rows = (line.partition("\t") for line in read_lines(folder / "words.txt", _ARCHIVE))
    first = {name: words.partition(",")[0].strip() for name, _, words in rows}
    if lacking := {name for name in ids if not first.get(name)}:
        raise DataError(
            f"{folder / 'words.txt'} has no name for {_some(lacking)}. Unpack {_ARCHIVE} again."
        )
    found = [first[name] for name in ids]
    return tuple(
        text if found.count(text) == 1 else name for name, text in zip(ids, found, strict=True)
    )


def _training(folder: Path, ids: Sequence[str]) -> list[tuple[Path, str]]:
    """Each training picture with the id of its class."""
    places = {name: folder / "train" / name / "images" for name in sorted(ids)}
    return [(path, name) for name, place in places.items() for path in _pictures(place)]


def _validation(folder: Path, ids: Sequence[str]) -> list[tuple[Path, str]]:
    """Each validation picture with the id of its class.

    Lines are `val_0.JPEG<tab>n03444034` and four numbers, the corners of a box.
    """
    file = folder / "val/val_annotations.txt"
    pictures = {path.name: path for path in _pictures(folder / "val/images")}
    labels: dict[str, str] = {}
    faults = []
    for line in read_lines(file, _ARCHIVE):
        name, label, *_ = [*line.split("\t"), ""]
        if name in labels:
            faults.append(f"{name} has two lines")
        elif name not in pictures:
            faults.append(f"{name} is not in val/images")
        elif label not in ids:
            faults.append(f"{name} is of the class {label!r}, which is not in {_CLASSES}")
        labels[name] = label
    faults += [f"{name} has no line" for name in pictures if name not in labels]
    if faults:
        raise DataError(
            f"{file} does not fit the pictures:\n{first_few(faults)}\nUnpack {_ARCHIVE} again."
        )
    return [(path, labels[name]) for name, path in pictures.items()]


def _check_whole(
    folder: Path,
    ids: Sequence[str],
    train: Sequence[tuple[Path, str]],
    validation: Sequence[tuple[Path, str]],
) -> None:
    """Refuse numbers of pictures that are not those of the published data set."""
    test = _pictures(folder / "test/images")
    found = {_CLASSES: len(ids), "train": len(train), "val": len(validation), "test": len(test)}
    found |= Counter(f"train/{name}" for _, name in train)
    each = dict.fromkeys((f"train/{name}" for name in ids), _PER_CLASS)
    check_sizes(folder, found, {**_SIZES, **each})


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGES.endings]


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing. Unpack {_ARCHIVE} again.")
    return visible_entries(folder)


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_NAMED]) + ", ..." * (len(names) > _NAMED)
