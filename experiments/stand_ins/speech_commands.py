"""Stand-in files for Speech Commands: synthetic words in the layout of its two archives."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from offramp.data.published import MARK
from offramp.data.sounds.speech_commands import MAIN, NOISE, TEST, VALIDATION_NOISE, WORDS

RATE = 16_000
OTHERS = ("bed", "cat")  # words that count as unknown
NOISES = ("pink_noise.wav", VALIDATION_NOISE)
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def write(
    root: Path,
    per_split: int,
    seed: int,
    *,
    noise_seconds: float = 3.0,
    held_out: int | None = None,
) -> None:
    """Write tones whose pitch and melody depend on the word, some shorter than a second.

    Args:
        root: Folder that gets both folders and the mark of stand-in files.
        per_split: Number of clips of each word in each split.
        seed: Of pitches, lengths and noise.
        noise_seconds: Length of each recording of noise.
        held_out: Number of words in validation and in test, some of which then lack clips; None
            leaves out none.
    """
    rng = np.random.default_rng(seed)
    for split in ("train", *LISTS):
        names = [
            f"{word}/{_speaker(split, take)}_nohash_0.wav"
            for word in (*WORDS, *OTHERS)[: None if split == "train" else held_out]
            for take in range(per_split)
        ]
        for name in names:
            _save(root / MAIN / name, _word(name, rng))
        if split in LISTS:
            (root / MAIN / LISTS[split]).write_text("\n".join(names), encoding="utf-8")
    for name in NOISES:
        _save(root / MAIN / NOISE / name, _noise(noise_seconds, rng))
    for take in range(per_split):
        for word in (*WORDS, "_unknown_")[:held_out]:
            name = f"{word}/{_speaker('final', take)}_nohash_0.wav"
            _save(root / TEST / name, _word(name, rng))
        _save(root / TEST / "_silence_" / f"{take}.wav", _noise(1, rng))
    for word in (*WORDS, "_unknown_"):
        (root / TEST / word).mkdir(exist_ok=True)
    (root / MARK).touch()


def _speaker(split: str, take: int) -> str:
    """A name of eight hexadecimal digits, as those of the data set."""
    return f"{split.encode().hex()[:4]}{take:04x}"


def _word(name: str, rng: np.random.Generator) -> NDArray[Any]:
    word = name.partition("/")[0]
    number = WORDS.index(word) if word in WORDS else len(WORDS)
    seconds = np.arange(int(RATE * rng.choice([1, rng.uniform(0.6, 0.9)]))) / RATE
    pitch = 150 * 2 ** ((2 * number + rng.uniform(-0.5, 0.5)) / 12)
    melody = pitch * (1 + 0.1 * (number % 3) * seconds)
    tone = 0.3 * np.sin(2 * np.pi * melody * seconds)
    return tone + rng.normal(scale=0.01, size=len(seconds))


def _noise(seconds: float, rng: np.random.Generator) -> NDArray[Any]:
    return rng.normal(scale=0.05, size=int(seconds * RATE))


def _save(path: Path, samples: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
