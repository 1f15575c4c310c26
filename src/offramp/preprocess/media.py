"""Media: kinds of files that samples come from, and their endings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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
