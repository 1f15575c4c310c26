"""Stand-in files for DISCO: synthetic crowds in its layout, whose sounds are louder with more."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import soundfile
from numpy.typing import NDArray
from PIL import Image

from offramp.data.published import MARK

RATE = 48_000
SIZE = (108, 192)
_SIDE, _SIGMA = 15, 4.0
_HEADER = b"MATLAB 5.0 MAT-file of a stand-in for DISCO"
_TEXT = 116  # bytes of a .mat file's header that are free text


def write(
    root: Path,
    per_split: int,
    seed: int,
    *,
    held_out: int | None = None,
    size: tuple[int, int] = SIZE,
    seconds: float = 1.0,
    most: int = 60,
) -> None:
    """Write pictures of noise with a bright spot for each head, sounds and smoothed maps.

    Kernels are cropped at the border and the last row and column stay empty, as in the published
    maps, so counts are fractional and a little low.

    Args:
        root: Folder that gets `imgs`, `auds`, `density` and the mark of stand-in files.
        per_split: Number of examples in each split.
        seed: Of places, numbers and noise.
        held_out: Number of examples in validation and in test; None is `per_split`.
        size: Height and width of a picture, at least 2 x 2.
        seconds: Length of a sound.
        most: Largest number of heads.
    """
    rng = np.random.default_rng(seed)
    for name in ("imgs", "auds"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        folder = root / "density" / split
        folder.mkdir(parents=True, exist_ok=True)
        count = per_split if held_out is None or split == "train" else held_out
        for number in range(count):
            name, heads = f"{split}_{number:04d}", int(rng.integers(1, most + 1))
            dots = rng.integers(0, size, (heads, 2))
            made = density(dots, size)
            (folder / f"{name}.mat").write_bytes(_mat(made))
            Image.fromarray(_picture(made, rng)).save(root / "imgs" / f"{name}.jpg")
            noise = rng.normal(size=(round(seconds * RATE), 2)) * heads / most / 10
            soundfile.write(root / "auds" / f"{name}.wav", noise, RATE)
    (root / MARK).touch()


def density(dots: NDArray[np.int64], size: tuple[int, int]) -> NDArray[Any]:
    """A published kind of map (H, W) of heads (N, 2), each a row and a column."""
    half = _SIDE // 2
    kernel = np.exp(-((np.arange(_SIDE) - half) ** 2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    made = np.zeros((size[0] + 2 * half, size[1] + 2 * half))
    for row, column in dots:
        made[row : row + _SIDE, column : column + _SIDE] += np.outer(kernel, kernel)
    made = made[half:-half, half:-half]
    made[-1], made[:, -1] = 0, 0
    return made


def _mat(made: NDArray[Any]) -> bytes:
    """A .mat file with a map, whose header is not the date, so that equal maps are equal files."""
    file = io.BytesIO()
    scipy.io.savemat(file, {"map": made}, do_compression=True)
    content = file.getvalue()
    return _HEADER.ljust(_TEXT) + content[_TEXT:]


def _picture(made: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    values = 60 + 8000 * made[..., None] + rng.normal(scale=10, size=(*made.shape, 3))
    return np.clip(values, 0, 255).astype(np.uint8)
