"""Layout of a folder of files by class: split and class of each file."""

import difflib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp.data.listing import check_same_classes
from offramp.data.splits import SPLIT_ALIASES, SPLIT_NAMES
from offramp.errors import DataError

_NAMED = 3  # folders that an error names

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Medium:
    """A kind of file.

    Attributes:
        noun: What messages call one such file.
        endings: Endings of file names, in lower case.
        beside: Endings of files that may lie beside these without a warning.
    """

    noun: str
    endings: tuple[str, ...]
    beside: tuple[str, ...] = ()


IMAGES = Medium("image", (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
SOUNDS = Medium("sound", (".wav", ".au", ".flac", ".ogg", ".mp3"))


def sounds_beside(file: Path) -> list[Path]:
    """The sound files in the same folder that have the name of this file except for the ending."""
    named = [file.with_suffix(ending) for ending in SOUNDS.endings]
    return [path for path in named if path.is_file()]


@dataclass(frozen=True)
class ClassFile:
    """One file, not opened yet.

    Attributes:
        split: Empty if the folder is not split.
    """

    path: Path
    split: str
    class_name: str


def list_split(root: Path, medium: Medium, classes: Sequence[str] | None = None) -> list[ClassFile]:
    """Files of root/SPLIT/CLASS/name, in the order of splits, classes and names.

    A folder `val`, `valid` or `dev` is the split validation. `train` and at least one of
    validation and test must exist; the other splits are drawn from these later.

    Args:
        root: The folder.
        medium: Which files to read; others are left out with a warning.
        classes: Folders to read, which a split may lack; None reads all, and every split needs all.

    Raises:
        DataError: A split is missing, a class is not listed, or without `classes` differs between
            splits or is empty.
    """
    present = _splits(root)
    if classes is None:
        held = {name: {entry.name for entry in _folders(folder)} for name, folder in present}
        check_same_classes(root, held)
    return [file for name, folder in present for file in _files(folder, name, medium, classes)]


def _splits(root: Path) -> list[tuple[str, Path]]:
    """Name and folder of each split that exists, in order."""
    folders = _folders(root)
    named = [(SPLIT_ALIASES.get(folder.name, folder.name), folder) for folder in folders]
    names = [name for name, _ in named]
    if names.count("validation") > 1:
        raise DataError(
            f"{root} has several folders for validation: "
            f"{', '.join(f.name for name, f in named if name == 'validation')}. Keep one."
        )
    missing = [name for name in SPLIT_NAMES if name not in names]
    near = _near(missing, [name for name in names if name not in SPLIT_NAMES])
    if "train" in missing or {"validation", "test"} <= {*missing} or near:
        raise DataError(
            f"{root} has no folder {' or '.join(map(repr, missing))}{near}. Give it the folders "
            "train and val (calibration and test samples are then drawn from val), or the four "
            f"splits {', '.join(SPLIT_NAMES)}; or, where {root} holds one folder per class, add "
            "`split: {}` to draw them at random."
        )
    order = {name: place for place, name in enumerate(SPLIT_NAMES)}
    return sorted((pair for pair in named if pair[0] in order), key=lambda pair: order[pair[0]])


def list_unsplit(
    root: Path, medium: Medium, classes: Sequence[str] | None = None
) -> list[ClassFile]:
    """Files of root/CLASS/name, in the order of classes and names; arguments as in `list_split`.

    Raises:
        DataError: The folder is missing or holds no classes, or a class is empty or not listed.
    """
    return list(_files(root, "", medium, classes))


def _files(
    folder: Path, split: str, medium: Medium, classes: Sequence[str] | None
) -> Iterator[ClassFile]:
    ignored: Counter[str] = Counter()
    for class_folder in _class_folders(folder, classes):
        entries = visible_entries(class_folder)
        nested = [entry.name for entry in entries if entry.is_dir()]
        if nested:
            raise DataError(
                f"{class_folder} should hold the {medium.noun}s of one class, but holds folders "
                f"({', '.join(nested[:3])}). Use root/SPLIT/CLASS/{medium.noun}, or "
                f"root/CLASS/{medium.noun} together with `split`."
            )
        fitting = [entry for entry in entries if entry.suffix.lower() in medium.endings]
        others = [e for e in entries if e.suffix.lower() not in medium.endings + medium.beside]
        ignored.update(entry.suffix or entry.name for entry in others)
        if not fitting and classes is None:
            raise DataError(
                f"{class_folder} holds no {medium.noun} ({', '.join(medium.endings)}). Add "
                f"{medium.noun}s of this class, remove its folder from every split, or list the "
                "backbone's classes in `classes`: then a split may lack some."
            )
        yield from (ClassFile(path, split, class_folder.name) for path in fitting)
    if ignored:
        found = ", ".join(f"{count} {ending}" for ending, count in sorted(ignored.items()))
        wanted = "/".join(medium.endings)
        _log.warning("%s: these were not read, since they are not %s: %s", folder, wanted, found)


def _class_folders(folder: Path, classes: Sequence[str] | None) -> list[Path]:
    """The folders of the classes to read, all of which have to be listed."""
    folders = _folders(folder)
    unknown = [each.name for each in folders if classes is not None and each.name not in classes]
    if unknown:
        raise DataError(
            f"{folder} holds {', '.join(unknown[:_NAMED])}{', ...' if unknown[_NAMED:] else ''}, "
            "which `classes` does not list. Add each at its place in the backbone's order of "
            "classes, or move the folder away."
        )
    return folders


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point `root` at the folder with the data.")
    folders = [entry for entry in visible_entries(root) if entry.is_dir()]
    if not folders:
        raise DataError(f"{root} is empty: it holds no folders of classes. Check `root`.")
    return folders


def visible_entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden entries.

    Raises:
        DataError: The folder cannot be listed, or holds a name that is not valid UTF-8.
    """
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
                f"{folder} holds {entry.name!a}, a name that is not valid UTF-8, but file names "
                "identify samples in tables and files. Rename it."
            ) from error
    return entries


def _near(missing: Sequence[str], others: Sequence[str]) -> str:
    pairs = [(m, n) for m in missing for n in difflib.get_close_matches(m, others, cutoff=0.6)]
    return "".join(f" (rename {other!r} to {name!r}?)" for name, other in pairs)
