"""Folders of classes: files with labels that a bundle is evaluated on, read without torch."""

from collections.abc import Sequence
from pathlib import Path

from offramp.answering import ModelFacts
from offramp.answering.sample import Sample, files_of, no_files
from offramp.errors import DataError
from offramp.preprocess.media import visible_entries, warn_of_unread
from offramp.table import counted

SPLITS = ("calibration", "test")
_NAMED = 5  # classes or folders that an error names


class ClassFolder:
    """Files in one folder per class, as a data set: sample i is (its files, class number).

    Args:
        folder: Has one folder for each class, which need not be all classes of the model.
        facts: Facts of the model, whose classes have names.
        root: Where the ids of samples, their paths, begin.

    Attributes:
        ids: (N,) path of each file below `root`.

    Raises:
        DataError: There are no files, or a folder is not that of a class.
    """

    def __init__(self, folder: Path, facts: ModelFacts, root: Path) -> None:
        self._facts = facts
        self._files = _files(folder, facts)
        self.ids = tuple(path.relative_to(root).as_posix() for path, _ in self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> tuple[Sample, int]:
        """The file of a sample, and the sound beside it if the model reads one; its class.

        Raises:
            DataError: A picture has no sound beside it, or several.
        """
        path, label = self._files[row]
        files = files_of(self._facts, str(path), "answer")
        if isinstance(files, tuple) and None in files:
            raise DataError(
                f"{path} has no sound file beside it, and the bundle also reads a sound. Put one "
                "of the same name beside each picture, or move this picture away."
            )
        return files, label


def read_splits(root: Path, facts: ModelFacts, only: str | None = None) -> dict[str, ClassFolder]:
    """The data in a folder, by split.

    Args:
        root: Has the folders `calibration` and `test`, or one of them, with one folder per class in
            each; or one folder per class.
        facts: Facts of the model.
        only: Read this split alone. It is also what a folder without splits is, and without it
            such a folder is calibration data.

    Raises:
        DataError: Files or classes cannot be matched with the model, the split is missing, or a
            folder is empty or cannot be listed.
    """
    _check_classes(facts, root)
    there = {each.name: each for each in visible_entries(root) if _is_split(each)}
    if not there:
        return {only or SPLITS[0]: ClassFolder(root, facts, root)}
    if only is not None and only not in there:
        raise DataError(
            f"{root} has no folder {only!r}, only {', '.join(map(repr, there))}. Add it, or choose "
            "another split."
        )
    wanted = SPLITS if only is None else (only,)
    return {name: ClassFolder(there[name], facts, root) for name in wanted if name in there}


def is_divided(root: Path) -> bool:
    """Whether a folder has folders of splits."""
    return any(map(_is_split, visible_entries(root)))


def _is_split(folder: Path) -> bool:
    """Whether it has the name of a split and holds folders, as no folder of a class does."""
    named = folder.name in SPLITS and folder.is_dir()
    return named and any(each.is_dir() for each in visible_entries(folder))


def _check_classes(facts: ModelFacts, root: Path) -> None:
    if facts.task == "regression" or not facts.class_names:
        what = "answers values" if facts.task == "regression" else "has no names for its classes"
        raise DataError(
            f"{root} has folders of classes, and this bundle {what}, so the labels are not known. "
            "Give a plan with its data, or in Python a data set to Runtime.collect."
        )
    if reason := no_files(facts):
        raise DataError(reason)


def _files(folder: Path, facts: ModelFacts) -> list[tuple[Path, int]]:
    """Files (N) with their class numbers."""
    numbers = {name: number for number, name in enumerate(facts.class_names)}
    folders = [each for each in visible_entries(folder) if each.is_dir()]
    unknown = [each.name for each in folders if each.name not in numbers]
    if unknown:
        raise DataError(
            f"{folder} holds {_some(unknown)}, and this bundle knows the classes "
            f"{_some(facts.class_names)}. Name each folder as the bundle names the class, and move "
            "others away. Files belong in FOLDER/CLASS, or in FOLDER/calibration/CLASS and "
            "FOLDER/test/CLASS."
        )
    found = [(path, numbers[each.name]) for each in folders for path in _in_class(each, facts)]
    if not found:
        endings = ", ".join(facts.file_endings)
        raise DataError(
            f"{folder} holds no folders of classes with files that this bundle reads ({endings}). "
            "Put the files of each class into a folder of its name: FOLDER/CLASS, or "
            "FOLDER/calibration/CLASS and FOLDER/test/CLASS."
        )
    return found


def _in_class(folder: Path, facts: ModelFacts) -> list[Path]:
    entries = visible_entries(folder)
    nested = [each.name for each in entries if each.is_dir()]
    if nested:
        raise DataError(
            f"{folder} should hold the files of one class, but holds "
            f"{counted(len(nested), 'folder')} ({_some(nested)}). Move the files up, or move the "
            "folders away."
        )
    endings = facts.file_endings
    known = (*endings, *facts.endings_beside)
    warn_of_unread(folder, [e for e in entries if e.suffix.lower() not in known], endings)
    return [each for each in entries if each.suffix.lower() in endings]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)
