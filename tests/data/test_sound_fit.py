import io
from typing import Any

import numpy as np
import pytest

from offramp.data.sound_fit import SoundFit
from offramp.preprocess import ImagePreprocess, SpectrogramPreprocess
from offramp.preprocess.spectrogram import Stft

soundfile: Any = pytest.importorskip("soundfile")

CHAIN = SpectrogramPreprocess(
    rate=8_000, num_samples=800, channels=(Stft(window=64, step=32, fft=64),)
)


def wave(count: int, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(count), rate, format="WAV")
    return buffer.getvalue()


def test_files_that_a_chain_changes_are_counted_by_what_it_does() -> None:
    fit = SoundFit([CHAIN])
    for count, rate in [(800, 8_000), (801, 8_000), (799, 8_000), (1_600, 16_000), (900, 16_000)]:
        fit.add([wave(count, rate)])
    fit.add([b"not a sound"])
    assert fit.lines() == [
        "5 sound files, of these 2 resampled to 8,000 Hz, 1 cut to 0.1 s, 2 padded to 0.1 s"
    ]


def test_files_that_fit_and_pictures_give_no_line() -> None:
    picture = ImagePreprocess(height=5, width=7, mean=(0.5,) * 3, std=(0.5,) * 3)
    fit = SoundFit([picture, CHAIN])
    assert fit.lines() == []
    fit.add([b"a picture", wave(800, 8_000)])
    assert fit.lines() == []
    fit.add([b"a picture", wave(400, 8_000)])
    assert fit.lines() == ["2 sound files, of these 1 padded to 0.1 s"]
