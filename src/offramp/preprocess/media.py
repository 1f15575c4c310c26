"""Media: kinds of files that samples come from, and their endings."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from offramp.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Medium:
    """A kind of file.

    Attributes:
        noun: What messages call one such file.
        folder: Kind of data that reads them from folders of classes.
        table: Kind of data that reads them from a CSV file.
        endings: Endings of file names, in lower case.
        beside: Endings of files that may lie beside these without a warning.
    """

    noun: str
    folder: str
    table: str
    endings: tuple[str, ...]
    beside: tuple[str, ...] = ()


IMAGES = Medium(
    "image",
    "image_folder",
    "csv",
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
)
SOUNDS = Medium("sound", "sound_folder", "sound_csv", (".wav", ".au", ".flac", ".ogg", ".mp3"))


def other_medium(medium: Medium, files: Iterable[Path]) -> Medium | None:
    """What these files are if none of them is of this medium, but some are of another."""
    endings = {file.suffix.lower() for file in files}
    if not endings.isdisjoint(medium.endings):
        return None
    return next((each for each in (IMAGES, SOUNDS) if not endings.isdisjoint(each.endings)), None)


def sounds_beside(file: Path) -> list[Path]:
    """The sound files in the same folder that have the name of this file except for the ending."""
    named = [file.with_suffix(ending) for ending in SOUNDS.endings]
    return [path for path in named if path.is_file()]


def visible_entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden entries.

    Raises:
        DataError: The folder cannot be listed, or holds a name that is not valid UTF-8.
    """
    try:
        entries = sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}. Allow reading it, or name another "
            "folder."
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


def warn_of_unread(folder: Path, unread: Iterable[Path], endings: Sequence[str]) -> None:
    """Log a warning that counts the files in a folder that are left out for their endings."""
    counts = Counter(each.suffix or each.name for each in unread)
    if counts:
        found = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
        _log.warning(
            "%s: these were not read, since they are not %s: %s", folder, "/".join(endings), found
        )
