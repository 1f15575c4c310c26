"""Keys of taps: everything that decides their content, in clear and as a digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from offramp.backbones.staged import StagedBackbone
from offramp.data import Samples
from offramp.features.extract import SCALE_SAMPLES, SCALE_SEED
from offramp.features.source import batch_size_on
from offramp.features.taps import CacheDtype

FORMAT = 4


def key_parts(
    backbone: StagedBackbone,
    dataset: Samples,
    cuts: tuple[str, ...],
    scales: Mapping[str, Any] | None,
    dtype: CacheDtype,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides the bits of the taps of a data set, as JSON values.

    A cut is listed with all places of the backbone up to it: where stages begin decides what can be
    folded, and so the last bits of later taps.

    Args:
        backbone: The cut backbone.
        dataset: The samples.
        cuts: Cuts whose taps are needed, in the order of the backbone.
        scales: Key of the scales of the training data; None if this is the training data.
        dtype: Type of the stored numbers.
        device: Device of the backbone.
    """
    data, places = dataset.content_key, [repr(place) for place in backbone.places]
    sample = {"data": data, "samples": SCALE_SAMPLES, "seed": SCALE_SEED, "dtype": dtype}
    return {
        "format": FORMAT,
        "backbone": backbone.weights_digest(),
        "stages": "folded, channels last" if device.type == "cpu" else "folded",
        "cuts": {name: places[: 1 + backbone.cuts.index(name)] for name in cuts},
        "data": data,
        "dtype": dtype,
        "scales": sample if scales is None else scales,
        "batch_size": batch_size_on(device),
        "device": str(device),
        "torch": str(torch.__version__),
    }


def digest_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, in hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shared_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts without the cuts, which taps of the same samples have in common."""
    return {name: part for name, part in parts.items() if name != "cuts"}


def origin_of(parts: Mapping[str, Any], cut: str, way: str) -> dict[str, Any]:
    """Everything that decides the taps at one cut, independently of the other cuts."""
    return {**shared_parts(parts), "cut": parts["cuts"][cut], "way": way}
