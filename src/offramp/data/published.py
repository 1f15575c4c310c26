"""Published data sets: their sizes, which are checked, and files that stand in for them in tests.

A folder with a file named STAND_IN holds synthetic files in the layout of a published data set, so
that everything can be tried without it. Sizes are not checked there, and whatever is measured on
them carries a warning.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.data.drawing import drawn
from offramp.data.samples import Samples
from offramp.errors import DataError
from offramp.storage.text import decode_text
from offramp.table import counted

MARK = "STAND_IN"
"""Name of the file that marks a folder of stand-in files."""

_NAMED = 10  # parts of a data set that an error lists; it counts the others


def is_stand_in(root: Path) -> bool:
    """Whether a folder, or one that it lies in, is marked as one of stand-in files."""
    place = root.absolute()
    return any((folder / MARK).is_file() for folder in (place, *place.parents))


def check_sizes(root: Path, found: Mapping[str, int], published: Mapping[str, int]) -> None:
    """Refuse a published data set that is not complete, unless the files stand in for it.

    Args:
        root: Folder of the data set.
        found: Number of samples by part.
        published: Number of samples that each part should have.

    Raises:
        DataError: A part has another number.
    """
    wrong = [name for name, count in published.items() if found.get(name, 0) != count]
    if wrong and not is_stand_in(root):
        listed = ", ".join(
            f"{name} has {found.get(name, 0):,} instead of {published[name]:,}"
            for name in wrong[:_NAMED]
        )
        if wrong[_NAMED:]:
            listed += f", and {len(wrong) - _NAMED} more are not whole"
        raise DataError(
            f"{root} is not the whole data set: {listed}. Fetch and unpack it again. (A folder of "
            f"made-up files, to try a plan without the data set, needs a file named {MARK}.)"
        )


def read_lines(path: Path, archive: str) -> list[str]:
    """The lines of a text file of a data set, without blanks around them and without blank ones.

    Args:
        path: The file.
        archive: Name of the archive that it comes from, for the error.

    Raises:
        DataError: It cannot be read, or is not text.
    """
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Unpack {archive} again.") from error
    return [line.strip() for line in lines if line.strip()]


def held_out(
    counts: Mapping[str, int],
    digests: NDArray[np.str_],
    labels: NDArray[np.int64],
    seed: int,
    *,
    stand_in: bool,
    sources: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """Name of the split (N,) of each training sample: train, or one it is drawn for.

    Args:
        counts: Number of samples to draw for each split; 0 draws none.
        digests: (N,) SHA-256 of each sample.
        labels: (N,) class numbers, over which draws are balanced.
        seed: Seed of the draw.
        stand_in: Whether the files stand in for others, of which there are more: each split then
            gets at most a quarter.
        sources: (N,) what each sample was taken from. Samples of one source stay together, so
            numbers are then met only as nearly as they allow.

    Raises:
        DataError: Nothing would be left to train on, or a split gets no source.
    """
    number = len(digests)
    taken = {name: count for name, count in counts.items() if count}
    if stand_in:
        taken = {name: min(count, math.ceil(number / 4)) for name, count in taken.items()}
    left = number - sum(taken.values())
    if left < 1:
        raise DataError(
            f"the splits {', '.join(taken)} would take all of the {number:,} training samples. "
            "Ask for fewer."
        )
    shares = {name: count / number for name, count in {**taken, "train": left}.items()}
    found = drawn(shares, seed, digests, labels, sources)
    if sources is not None and (empty := [name for name in shares if name not in found]):
        raise DataError(
            f"{', '.join(empty)} would be empty: there are {number:,} training samples of "
            f"{counted(len(np.unique(sources)), 'source')}, and samples of one source stay "
            f"together. Ask for {'fewer' if 'train' in empty else 'more'} samples."
        )
    return found


def with_calibration(
    splits: NDArray[np.str_], count: int, samples: Samples, seed: int, *, stand_in: bool
) -> NDArray[np.str_]:
    """Splits (N,) of samples, with `count` of the training samples drawn for calibration.

    Samples of one cluster stay together; otherwise as `held_out`.

    Raises:
        DataError: Nothing would be left to train on, or a split gets no source.
    """
    rows = np.flatnonzero(splits == "train")
    if not count or not rows.size:
        return splits
    facts = samples.digests[rows], samples.targets[rows], seed
    sources = np.asarray(samples.clusters)[rows]
    found = splits.astype("U11")  # room for "calibration"
    found[rows] = held_out({"calibration": count}, *facts, stand_in=stand_in, sources=sources)
    return found
