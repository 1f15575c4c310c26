"""Layout of a folder of files by class: split and class of each file."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp.data.listing import check_same_classes
from offramp.data.splits import SPLIT_ALIASES, SPLIT_NAMES
from offramp.errors import DataError, KindError
from offramp.preprocess.media import Medium, other_medium, visible_entries, warn_of_unread
from offramp.table import counted

_NAMED = 3  # folders that an error names


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
    present = _splits(root, medium)
    if classes is None:
        held = {name: {e.name for e in _folders(folder, medium)} for name, folder in present}
        check_same_classes(root, held)
    return [file for name, folder in present for file in _files(folder, name, medium, classes)]


def _splits(root: Path, medium: Medium) -> list[tuple[str, Path]]:
    """Name and folder of each split that exists, in order."""
    folders = _folders(root, medium)
    named = [(SPLIT_ALIASES.get(folder.name, folder.name), folder) for folder in folders]
    names = [name for name, _ in named]
    if names.count("validation") > 1:
        raise DataError(
            f"{root} has several folders for validation: "
            f"{', '.join(f.name for name, f in named if name == 'validation')}. Keep one."
        )
    missing = [name for name in SPLIT_NAMES if name not in names]
    near = _near(missing, [n for n, f in named if n not in SPLIT_NAMES and not _is_class(f)])
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
    others: list[Path] = []
    fitting: list[Path] = []
    for class_folder in _class_folders(folder, medium, classes):
        entries = visible_entries(class_folder)
        nested = [entry.name for entry in entries if entry.is_dir()]
        if nested:
            raise DataError(
                f"{class_folder} should hold the {medium.noun}s of one class, but holds folders "
                f"({', '.join(nested[:3])}). Use root/SPLIT/CLASS/{medium.noun}, or "
                f"root/CLASS/{medium.noun} together with `split`."
            )
        of_class = [entry for entry in entries if entry.suffix.lower() in medium.endings]
        fitting += of_class
        others += [e for e in entries if e.suffix.lower() not in medium.endings]
        if not of_class and classes is None:
            if other := other_medium(medium, entries):
                raise _other_kind(class_folder, medium, other)
            raise DataError(
                f"{class_folder} holds no {medium.noun} ({', '.join(medium.endings)}). Add "
                f"{medium.noun}s of this class, remove its folder from every split, or list the "
                "backbone's classes in `classes`: then a split may lack some."
            )
        yield from (ClassFile(path, split, class_folder.name) for path in of_class)
    if not fitting and (other := other_medium(medium, others)):
        raise _other_kind(folder, medium, other)
    unread = [e for e in others if e.suffix.lower() not in medium.beside]
    warn_of_unread(folder, unread, medium.endings)


def _other_kind(folder: Path, medium: Medium, other: Medium) -> KindError:
    return KindError(
        f"{folder} holds {other.noun} files, and data of kind {medium.folder!r} reads "
        f"{medium.noun}s. Use `kind: {other.folder}`."
    )


def _class_folders(folder: Path, medium: Medium, classes: Sequence[str] | None) -> list[Path]:
    """The folders of the classes to read, all of which have to be listed."""
    folders = _folders(folder, medium)
    unknown = [each.name for each in folders if classes is not None and each.name not in classes]
    if unknown:
        raise DataError(
            f"{folder} holds {', '.join(unknown[:_NAMED])}{', ...' if unknown[_NAMED:] else ''}, "
            "which `classes` does not list. Add each at its place in the backbone's order of "
            "classes, or move the folder away."
        )
    return folders


def _folders(root: Path, medium: Medium) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Point `root` at the folder with the data.")
    entries = visible_entries(root)
    folders = [entry for entry in entries if entry.is_dir()]
    if not entries:
        raise DataError(f"{root} is empty: it holds no folders of classes. Check `root`.")
    if not folders:
        fitting = other_medium(medium, entries) or medium
        raise DataError(
            f"{root} holds {counted(len(entries), 'file')}, such as {entries[0].name}, and no "
            "folders of classes. Put the files of each class into a folder of its own, or list all "
            f"files with their labels in a CSV file and use `kind: {fitting.table}`."
        )
    return folders


def _is_class(folder: Path) -> bool:
    """Whether a folder is one of a class, which holds files and no folders, and not of a split."""
    entries = visible_entries(folder)
    return bool(entries) and not any(entry.is_dir() for entry in entries)


def _near(missing: Sequence[str], others: Sequence[str]) -> str:
    pairs = [(m, n) for m in missing for n in difflib.get_close_matches(m, others, cutoff=0.6)]
    return "".join(f" (rename {other!r} to {name!r}?)" for name, other in pairs)
