"""Where the image files of a folder are, and which split and class each belongs to."""

import difflib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile:
    """One file, not opened yet.

    Attributes:
        split: Empty where the folder is not split.
    """

    path: Path
    split: str
    class_name: str


def list_split(root: Path) -> list[ImageFile]:
    """Files of root/SPLIT/CLASS/name, in the order of splits, classes and names.

    Raises:
        DataError: A split is missing, the classes differ between splits, or a class is empty.
    """
    present = {folder.name: folder for folder in _folders(root)}
    missing = [name for name in SPLIT_NAMES if name not in present]
    if missing:
        raise DataError(
            f"{root} has no folder {' or '.join(map(repr, missing))}{_near(missing, present)}. "
            f"Name the four splits {', '.join(SPLIT_NAMES)}, or, where {root} holds one folder per "
            "class, add `split: {}` to draw them at random."
        )
    classes = {name: {folder.name for folder in _folders(present[name])} for name in SPLIT_NAMES}
    _check_same_classes(root, classes)
    return [file for name in SPLIT_NAMES for file in _images(present[name], name)]


def list_unsplit(root: Path) -> list[ImageFile]:
    """Files of root/CLASS/name, in the order of classes and names.

    Raises:
        DataError: The folder is missing or holds no classes, or a class is empty.
    """
    return list(_images(root, ""))


def _images(folder: Path, split: str) -> Iterator[ImageFile]:
    ignored: Counter[str] = Counter()
    for class_folder in _folders(folder):
        entries = _entries(class_folder)
        nested = [entry.name for entry in entries if entry.is_dir()]
        if nested:
            raise DataError(
                f"{class_folder} should hold the images of one class, but holds folders "
                f"({', '.join(nested[:3])}). Use root/SPLIT/CLASS/image, or root/CLASS/image "
                "together with `split`."
            )
        images = [entry for entry in entries if entry.suffix.lower() in ENDINGS]
        ignored.update(e.suffix or e.name for e in entries if e.suffix.lower() not in ENDINGS)
        if not images:
            raise DataError(
                f"{class_folder} holds no image ({', '.join(ENDINGS)}). Add images of this class, "
                "or remove the class from every split."
            )
        yield from (ImageFile(path, split, class_folder.name) for path in images)
    if ignored:
        found = ", ".join(f"{count} {ending}" for ending, count in sorted(ignored.items()))
        _log.warning("%s: not read, since they are not %s: %s", folder, "/".join(ENDINGS), found)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point `root` at the folder with the images.")
    folders = [entry for entry in _entries(root) if entry.is_dir()]
    if not folders:
        raise DataError(f"{root} is empty: it holds no folders of images. Check `root`.")
    return folders


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden entries."""
    try:
        entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}. Allow reading it, or check `root`."
        ) from error
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{folder} holds {entry.name!a}, a name that is not valid UTF-8, and file names "
                "name samples in tables and files. Rename it."
            ) from error
    return entries


def _check_same_classes(root: Path, classes: Mapping[str, set[str]]) -> None:
    everywhere = set.union(*classes.values())
    lacking = {name: sorted(everywhere - held) for name, held in classes.items()}
    if any(lacking.values()):
        differences = "; ".join(f"{name} lacks {', '.join(c)}" for name, c in lacking.items() if c)
        raise DataError(
            f"the classes in {root} differ between splits: {differences}. Add images of "
            "these classes, or remove the class from every split."
        )


def _near(missing: list[str], present: Mapping[str, Path]) -> str:
    others = [name for name in present if name not in SPLIT_NAMES]
    pairs = [(m, n) for m in missing for n in difflib.get_close_matches(m, others, cutoff=0.45)]
    return "".join(f" (rename {other!r} to {name!r}?)" for name, other in pairs)
