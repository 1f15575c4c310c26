"""Item: one sample of a user's data set, read and checked."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from offramp.errors import DataError
from offramp.task import checked_target

PROBED = 12
"""Number of samples of a user's data set that are read twice, to see whether they change."""

PROBE_SEED = 0
"""Seed of their choice."""

Item = tuple[tuple[Tensor | None, ...], Any]
"""Inputs and target of one sample."""


class MapDataset(Protocol):
    """A map-style data set: item i is (input or tuple of inputs, target)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def read_item(dataset: MapDataset, row: int) -> Item:
    """Inputs and target of one sample, checked."""
    item = dataset[row]
    if isinstance(item, Mapping):
        raise DataError(
            f"sample {row} is a dict with {listed_keys(item)}, not a pair (input, label). Name the "
            'keys of its input and its label, for example as_samples(data, keys=("image", '
            '"label")), and use what that returns in place of the data set.'
        )
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"sample {row} is a {type(item).__name__}, not a pair (input, label). "
            "Return the input, or a tuple of inputs, and one label."
        )
    value, target = item
    parts = value if isinstance(value, tuple) else (value,)
    if not parts or all(part is None for part in parts):
        raise DataError(f"sample {row} has no input at all. Give it one, or leave it out.")
    return tuple(None if part is None else _tensor(part, row) for part in parts), checked_target(
        target, row
    )


def listed_keys(item: Mapping[Any, Any]) -> str:
    """The keys of an item, for messages."""
    return f"the keys {', '.join(map(repr, item))}" if item else "no keys"


def is_decoded_sound(value: Any) -> bool:
    """Whether an input is a sound as Hugging Face's `datasets` decodes it."""
    return isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys()


def probe_items(dataset: MapDataset) -> dict[int, Item]:
    """Read some samples twice, spread over the data set, and return their second readings by place.

    Later readings are compared as well, but this finds a random data set before all of it is read,
    and also finds one if each sample is read only once.

    Raises:
        DataError: A sample is not the same twice.
    """
    count = min(PROBED, len(dataset))
    within = np.random.default_rng(PROBE_SEED).random(count)  # one sample of each of `count` parts
    found = {}
    for row in ((np.arange(count) + within) * len(dataset) / count).astype(int).tolist():
        first, found[row] = read_item(dataset, row), read_item(dataset, row)
        if digest_of(parts_of(*first)) != digest_of(parts_of(*found[row])):
            raise DataError(
                f"sample {row} was different when it was read again: this data set changes its "
                "samples at random, as training transforms do. Features are computed once and "
                "kept, and accuracies would change from call to call. Give it the transforms of "
                "your evaluation. To train on augmented images, add `augment=`, with "
                'how="fused" or with a fixed number of `views`.'
            )
    return found


def parts_of(values: Sequence[Tensor | None], target: Any) -> list[Tensor | None]:
    """All tensors of a sample: inputs and target."""
    return [*values, torch.as_tensor(target)]


def digest_of(parts: Sequence[Tensor | None]) -> bytes:
    """SHA-256 of the numbers, with their types and shapes."""
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            digest.update(b"absent;")
            continue
        digest.update(f"{part.dtype} {tuple(part.shape)};".encode())
        digest.update(part.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _tensor(value: Any, row: int) -> Tensor:
    if isinstance(value, Image.Image):
        raise DataError(
            f"an input of sample {row} is a picture ({value.mode}, {value.width}x{value.height} "
            "pixels), and the backbone reads numbers. Say how to prepare pictures: "
            "as_samples(data, preprocess=...) takes an offramp.preprocess.ImagePreprocess, or the "
            "transforms of your evaluation."
        )
    if is_decoded_sound(value):
        raise DataError(
            f"an input of sample {row} is a sound, and the backbone reads spectrograms. Say how to "
            "prepare sounds: as_samples(data, preprocess=...) takes an "
            "offramp.preprocess.SpectrogramPreprocess."
        )
    try:
        # A copy, since a data set may give the same buffer again with the next sample in it.
        is_tensor = isinstance(value, Tensor)
        own = value.clone() if is_tensor else torch.from_numpy(np.array(value, order="C"))
    except TypeError as error:
        raise DataError(
            f"an input of sample {row} is a {type(value).__name__} that holds no plain numbers. "
            "Return tensors or numeric arrays."
        ) from error
    return single_precision(own)


def single_precision(values: Tensor) -> Tensor:
    """The same values, float64 as float32, apart from any gradient."""
    if values.dtype == torch.uint8:
        raise DataError(
            "the inputs are uint8, probably raw pixels. Scale and normalise them to float32 as the "
            "backbone was trained with, for example with as_samples(data, preprocess=...) and an "
            "offramp.preprocess.ImagePreprocess, which takes pillow images and arrays (H, W, C)."
        )
    return values.detach().float() if values.dtype == torch.float64 else values.detach()
