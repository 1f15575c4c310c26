"""Stand-in files for GTZAN: synthetic music in its layout, under names of its published split."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from offramp.data.published import MARK
from offramp.data.sounds.gtzan import GENRES, published_split

RATE = 22_050
SAMPLES = 661_794  # of most clips of the data set


def write(
    root: Path,
    per_split: int,
    seed: int,
    *,
    samples: int = SAMPLES,
    rate: int = RATE,
    held_out: int | None = None,
) -> None:
    """Write clips of noise with a beat and a chord, whose pitch and speed depend on the genre.

    Args:
        root: Folder that gets `genres` and the mark of stand-in files.
        per_split: Number of tracks of each genre in each part of the published split.
        seed: Of pitches, beats and noise.
        samples: Length of a clip.
        rate: Samples a second.
        held_out: Number of genres with tracks in validation and test; None is all.
    """
    rng = np.random.default_rng(seed)
    by_part: dict[tuple[str, str], list[str]] = {}
    for track, part in published_split().items():
        by_part.setdefault((track.split(".")[0], part), []).append(track)
    for (genre, part), tracks in by_part.items():
        if part != "train" and genre not in GENRES[:held_out]:
            continue
        folder = root / "genres" / genre
        folder.mkdir(parents=True, exist_ok=True)
        for track in tracks[:per_split]:
            clip = _clip(GENRES.index(genre), samples, rate, rng)
            soundfile.write(folder / f"{track}.au", clip, rate, subtype="PCM_16")
    (root / MARK).touch()


def _clip(genre: int, samples: int, rate: int, rng: np.random.Generator) -> NDArray[Any]:
    seconds = np.arange(samples) / rate
    pitch = 110 * 2 ** ((3 * genre + rng.uniform(-1, 1)) / 12)
    chord = sum(np.sin(2 * np.pi * pitch * ratio * seconds) for ratio in (1, 1.25, 1.5))
    beat = np.exp(-8 * (seconds * (1 + genre / 5) * rng.uniform(0.95, 1.05) % 1))
    return 0.1 * chord * beat + rng.normal(scale=0.02, size=samples)
