"""Sound files as samples at a given rate, by libsndfile and the SoX resampler (extra `audio`)."""

import importlib
import io
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError


def decode_sound(content: bytes, rate: int) -> NDArray[np.float32]:
    """The sound in a file's bytes, (N,) from -1 to 1: the mean of its channels, resampled.

    Args:
        content: Content of a file in any format that libsndfile reads: WAV, AU, FLAC, OGG, MP3.
        rate: Samples per second of the result.

    Raises:
        DataError: The content is not that of a sound, it has no samples, or the extra `audio` is
            not installed.
    """
    soundfile, soxr = _library("soundfile"), _library("soxr")
    try:
        samples, own_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise DataError("its content is not a sound of a known format, or is damaged") from error
    if len(samples) == 0:
        raise DataError("it decodes to no samples at all")
    if not np.isfinite(samples).all():
        raise DataError("it holds values that are not finite")
    mono: NDArray[np.float32] = samples.mean(axis=1)
    return mono if own_rate == rate else soxr.resample(mono, own_rate, rate).astype(np.float32)


def check_libraries() -> None:
    """Raise an error if the libraries of the extra are missing.

    Raises:
        DataError: It names the extra.
    """
    for name in ("soundfile", "soxr"):
        _library(name)


def _library(name: str) -> ModuleType:
    """One of the libraries of the extra, which take a second to import."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile finds no libsndfile
        raise DataError(
            f"reading sound files needs {name} ({error}). Install it with: pip install "
            "'offramp[audio]'"
        ) from error
