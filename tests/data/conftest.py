from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

WriteTone = Callable[..., None]


@pytest.fixture
def write_tone() -> WriteTone:
    """Write a quiet tone as a sound file, in the format that the ending of its name says."""
    soundfile = pytest.importorskip("soundfile")

    def write(path: Path, hz: float, *, rate: int = 16_000, seconds: float = 0.5) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
        soundfile.write(path, samples, rate)

    return write
