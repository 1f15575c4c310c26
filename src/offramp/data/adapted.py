"""AdaptedDataset: a data set whose items are made into pairs (input, label) when they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from offramp.arguments import described
from offramp.data.item import MapDataset, is_decoded_sound, listed_keys
from offramp.errors import DataError, OfframpError
from offramp.preprocess import SpectrogramPreprocess
from offramp.preprocess.sound import resampled
from offramp.preprocess.spectrogram import Sound

Keys = tuple[str | tuple[str, ...], str]
"""Key of the input, or a tuple of keys if there are several inputs, and key of the label."""


@dataclass(frozen=True, eq=False)
class AdaptedDataset:
    """Items of another data set as pairs.

    Attributes:
        dataset: Its items are dicts if `keys` are given, and pairs otherwise.
        keys: See Keys.
        preprocess: Called with each input that is a picture, a pillow image or an array of uint8; a
            SpectrogramPreprocess with each that is a sound, see `sound_of`.
    """

    dataset: MapDataset
    keys: Keys | None
    preprocess: Callable[[Any], Any] | None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Any:
        item = self.dataset[row]
        if self.keys is not None:
            item = _by_keys(item, self.keys, row)
        if self.preprocess is None or not isinstance(item, tuple | list) or len(item) != 2:
            return item
        value, target = item
        parts = value if isinstance(value, tuple) else (value,)
        if isinstance(self.preprocess, SpectrogramPreprocess):
            return _heard(parts, self.preprocess, row), target
        return tuple(self._prepared(part) for part in parts), target

    def _prepared(self, part: Any) -> Any:
        pixels = isinstance(part, np.ndarray) and part.dtype == np.uint8
        is_picture = pixels or isinstance(part, Image.Image)
        return self.preprocess(part) if self.preprocess and is_picture else part


def _heard(parts: tuple[Any, ...], preprocess: SpectrogramPreprocess, row: int) -> tuple[Any, ...]:
    """The inputs of a sample with its sounds prepared.

    Raises:
        DataError: None of them is a sound, or one cannot be read.
        ShapeError: A sound is not one channel of floats.
    """
    try:
        sounds = [sound_of(part, preprocess.rate) for part in parts]
        if all(sound is None for sound in sounds) and any(part is not None for part in parts):
            raise DataError(
                f"none of its inputs ({', '.join(map(_described, parts))}) is a sound, which the "
                "preprocessing takes. Give an array (N,) of floats from -1 to 1 at its rate, "
                f"{preprocess.rate} Hz; a dict of 'array' and 'sampling_rate'; or the bytes of a "
                "sound file."
            )
        return tuple(
            part if sound is None else preprocess(sound)
            for part, sound in zip(parts, sounds, strict=True)
        )
    except OfframpError as error:
        raise type(error)(f"sample {row}: {error}") from error


def sound_of(part: Any, rate: int) -> Sound | None:
    """An input as SpectrogramPreprocess takes it; None if it is not a sound.

    Args:
        part: Any input. Sounds are arrays or tensors (N,) at `rate`, bytes of a file, and dicts of
            `array` (N,) and `sampling_rate`, as Hugging Face's `datasets` decodes sounds.
        rate: Samples per second of the result.
    """
    if isinstance(part, bytes):
        return part
    if is_decoded_sound(part):
        samples = np.asarray(part["array"])
        own_rate = int(part["sampling_rate"])
        is_sound = samples.ndim == 1 and samples.dtype.kind == "f"
        return resampled(samples, own_rate, rate) if is_sound else samples
    if isinstance(part, np.ndarray | Tensor) and part.ndim == 1:
        return np.asarray(part)
    return None


def _described(part: Any) -> str:
    if isinstance(part, np.ndarray | Tensor):
        return f"an array {tuple(part.shape)}"
    return described(part)


def checked_keys(keys: Any) -> Keys:
    """Keys as they should be given.

    Raises:
        DataError: They are not one for the input, or a tuple of them, and one for the label.
    """
    if isinstance(keys, tuple | list) and len(keys) == 2:
        value, label = keys
        inputs = value if isinstance(value, tuple) else (value,)
        if inputs and all(isinstance(key, str) for key in (*inputs, label)):
            return value, label
    raise DataError(
        f"keys={keys!r} must name the input and the label, such as keys=('image', 'label'); for a "
        "model of two inputs, keys=(('left', 'right'), 'label')."
    )


def _by_keys(item: Any, keys: Keys, row: int) -> tuple[tuple[Any, ...], Any]:
    """Inputs and label of an item."""
    if not isinstance(item, Mapping):
        raise DataError(
            f"sample {row} is a {type(item).__name__}, and `keys` are for samples that are dicts. "
            "Leave them out."
        )
    value, label = keys
    inputs = value if isinstance(value, tuple) else (value,)
    for key in (*inputs, label):
        if key not in item:
            raise DataError(
                f"sample {row} has no key {key!r}. It has {listed_keys(item)}: name two of these "
                "in `keys`."
            )
    return tuple(item[key] for key in inputs), item[label]
