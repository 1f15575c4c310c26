"""Devices: what one is called, and waiting for the work that is queued on it."""

from collections.abc import Callable

import torch


def wait_for(device: torch.device | str) -> Callable[[], object]:
    """A function that returns when the device has finished all work queued on it."""
    place = torch.device(device)
    if place.type == "cuda":
        return lambda: torch.cuda.synchronize(place)
    if place.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def device_name(device: torch.device | str) -> str:
    """The device as reports name it, a GPU with its model."""
    place = torch.device(device)
    return f"{place}: {torch.cuda.get_device_name(place)}" if place.type == "cuda" else str(place)
