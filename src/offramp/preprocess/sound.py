"""Sound files as samples at a given rate, by libsndfile and the SoX resampler (extra `audio`)."""

import importlib
import io
import struct
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.errors import DataError, ExtraError

_UNKNOWN = 0x7FFF_F000
"""Sizes from here on, and 0, come from programs that write a stream and cannot know its size."""
_LOUDEST = 100
"""No sample of a recording from -1 to 1 is above this, though some filters and formats exceed 1."""
_SLACK = 1024  # bytes; some programs count their header among the samples


def decode_sound(content: bytes, rate: int) -> NDArray[np.float32]:
    """The sound in a file's bytes, (N,) from -1 to 1: the mean of its channels, resampled.

    Args:
        content: Content of a file in any format that libsndfile reads: WAV, AU, FLAC, OGG, MP3.
        rate: Samples per second of the result.

    Raises:
        DataError: The content is empty or not that of a sound, it ends before its header says, or
            its samples are refused by `check_samples`.
        ExtraError: The extra `audio` is not installed.
    """
    check_libraries()
    soundfile = _library("soundfile")
    if not content:
        raise DataError("it is empty")
    _check_whole(content)
    try:
        samples, own_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise DataError("its content is not a sound of a known format, or is damaged") from error
    check_samples(samples)
    return resampled(samples.mean(axis=1), own_rate, rate)


def check_samples(samples: NDArray[Any]) -> None:
    """Refuse samples (N,) or (N, C) that hold no sound, or whole numbers where floats belong.

    Raises:
        DataError: There are none, or some are not finite or far outside -1..1.
    """
    if len(samples) == 0:
        raise DataError("it decodes to no samples at all")
    if not np.isfinite(samples).all():
        raise DataError("it holds values that are not finite")
    largest = float(np.abs(samples).max())
    if largest > _LOUDEST:
        raise DataError(
            f"its samples should lie between -1 and 1, and the largest is {largest:,.0f}. Divide "
            "by 32768 if they are 16-bit integers, or by their full scale otherwise"
        )


def resampled(samples: NDArray[Any], own_rate: int, rate: int) -> NDArray[np.float32]:
    """A sound (N,) at another number of samples per second, and as it is at the same.

    Raises:
        ExtraError: The extra `audio` is not installed.
    """
    if own_rate != rate:
        samples = _library("soxr").resample(samples, own_rate, rate)
    return samples.astype(np.float32, copy=False)


def sound_length(content: bytes) -> tuple[int, int]:
    """Number of samples per channel and samples per second, from the header; nothing is decoded.

    Raises:
        DataError: The content is not that of a sound, or the extra `audio` is not installed.
    """
    soundfile = _library("soundfile")
    try:
        found = soundfile.info(io.BytesIO(content))
    except soundfile.SoundFileError as error:
        raise DataError("its content is not a sound of a known format, or is damaged") from error
    return found.frames, found.samplerate


def _check_whole(content: bytes) -> None:
    """Refuse a WAV or AU file that was cut short, which libsndfile reads as a shorter sound."""
    promised, held = _promised(content)
    if 0 < promised < _UNKNOWN and held + _SLACK < promised:
        raise DataError(
            f"it ends early: its header promises {promised:,} bytes of samples, and it holds "
            f"{held:,}. Copy or record it again, or save the samples that are there again"
        )


def _promised(content: bytes) -> tuple[int, int]:
    """Bytes of samples that a header promises, and those that are there; (0, 0) if it does not."""
    if content[:4] in (b".snd", b"dns.") and len(content) >= 12:
        start, size = struct.unpack(">II" if content[:4] == b".snd" else "<II", content[4:12])
        return size, len(content) - start
    if content[:4] not in (b"RIFF", b"RIFX") or content[8:12] != b"WAVE":
        return 0, 0
    place, order = 12, "<I" if content[:4] == b"RIFF" else ">I"
    while place + 8 <= len(content):
        [size] = struct.unpack(order, content[place + 4 : place + 8])
        if content[place : place + 4] == b"data":
            return size, len(content) - place - 8
        place += 8 + size + size % 2
    return 0, 0


def check_libraries() -> None:
    """Raise an error if the libraries of the extra are missing.

    Raises:
        ExtraError: It names the extra.
    """
    for name in ("soundfile", "soxr"):
        _library(name)


def _library(name: str) -> ModuleType:
    """One of the libraries of the extra, which take a second to import."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile finds no libsndfile
        raise ExtraError(
            f"reading sound files needs {name} ({error}). Install it with: pip install "
            "'offramp[audio]'"
        ) from error
