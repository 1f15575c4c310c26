import io
import struct
import sys
from typing import Any

import numpy as np
import pytest

from offramp.errors import DataError
from offramp.preprocess.sound import decode_sound, sound_length
from offramp.preprocess.spectrogram import SPEECH_COMMANDS

soundfile: Any = pytest.importorskip("soundfile")


def encoded(samples: Any, rate: int = 16_000, form: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(samples, np.float32), rate, format=form, subtype=subtype)
    return buffer.getvalue()


def tone(hz: float, rate: int, seconds: float = 0.5) -> Any:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def test_samples_come_as_they_are_where_the_rate_is_right() -> None:
    samples = tone(440, 16_000).astype(np.float32)
    assert np.array_equal(decode_sound(encoded(samples), 16_000), samples)


@pytest.mark.parametrize("form", ["AU", "FLAC", "OGG"])
def test_other_formats_are_read(form: str) -> None:
    subtype = {"AU": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS"}[form]
    samples = tone(440, 22_050)
    found = decode_sound(encoded(samples, 22_050, form, subtype), 22_050)
    assert len(found) == len(samples)
    assert np.abs(found - samples).max() < 0.05


def test_channels_are_averaged() -> None:
    left, right = tone(440, 16_000), tone(900, 16_000)
    found = decode_sound(encoded(np.stack([left, right], axis=1)), 16_000)
    assert np.allclose(found, (left + right) / 2, atol=1e-6)


def test_another_rate_is_resampled_and_keeps_the_tone() -> None:
    found = decode_sound(encoded(tone(1_000, 48_000), 48_000), 16_000)
    middle = found[1_000:-1_000]
    expected = tone(1_000, 16_000)[1_000 : 1_000 + len(middle)]
    assert abs(len(found) - 8_000) <= 1
    assert np.allclose(middle, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"RIFF, but nothing else", "not a sound of a known format"),
        (encoded([]), "decodes to no samples"),
        (encoded([0.1, np.nan]), "not finite"),
        (encoded([0.1, -32_767]), r"the largest is 32,767\. Divide by 32768"),
    ],
    ids=[
        "nothing",
        "a header alone",
        "no samples",
        "a sample that is no number",
        "samples on the scale of integers",
    ],  # files hold dates
)
def test_content_without_a_sound_is_one_clear_error(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_sound(content, 16_000)


def test_a_float_file_may_exceed_full_scale() -> None:
    samples = np.array([0.5, -2.5, 1.25], np.float32)
    assert np.array_equal(decode_sound(encoded(samples), 16_000), samples)


@pytest.mark.parametrize("form", ["WAV", "AU", "WAVEX"])
def test_a_file_that_ends_before_its_header_says_is_refused(form: str) -> None:
    whole = encoded(tone(440, 16_000), form=form, subtype="PCM_16")
    assert len(decode_sound(whole, 16_000)) == 8_000
    with pytest.raises(
        DataError, match=r"ends early: its header promises 16,000 .* holds 11,000\."
    ):
        decode_sound(whole[:-5_000], 16_000)


def test_a_big_endian_wave_file_that_ends_early_is_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(440, 16_000), 16_000, "PCM_16", "BIG", "WAV")
    assert buffer.getvalue().startswith(b"RIFX")
    with pytest.raises(DataError, match="promises 16,000 bytes of samples, and it holds 12,000"):
        decode_sound(buffer.getvalue()[:-4_000], 16_000)


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 16_044])
def test_a_size_that_a_stream_could_not_know_promises_nothing(size: int) -> None:
    whole = encoded(tone(440, 16_000), subtype="PCM_16")
    place = whole.index(b"data") + 4
    streamed = whole[:place] + struct.pack("<I", size) + whole[place + 4 :]
    assert np.array_equal(decode_sound(streamed, 16_000), decode_sound(whole, 16_000))


def test_what_follows_the_samples_is_none_of_them() -> None:
    whole = encoded(tone(440, 16_000), subtype="PCM_16")
    longer = whole + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert np.array_equal(decode_sound(longer, 16_000), decode_sound(whole, 16_000))


def test_length_and_rate_are_read_from_the_header() -> None:
    stereo = np.zeros((1_234, 2))
    assert sound_length(encoded(stereo, 22_050, "FLAC", "PCM_16")) == (1_234, 22_050)
    with pytest.raises(DataError, match="not a sound of a known format"):
        sound_length(b"no sound")


def test_a_missing_library_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(DataError, match=r"needs soxr .*pip install 'offramp\[audio\]'"):
        decode_sound(encoded([0.1]), 16_000)


def test_a_preprocessing_takes_the_bytes_of_a_file() -> None:
    samples = tone(700, 16_000, 1.0).astype(np.float32)
    assert np.array_equal(SPEECH_COMMANDS(encoded(samples)), SPEECH_COMMANDS(samples))
