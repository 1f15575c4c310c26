"""Devices: their names, and waiting for queued work."""

from collections.abc import Callable

import torch


def wait_for(device: torch.device | str) -> Callable[[], object]:
    """Return a function that waits until the device has finished all queued work."""
    place = torch.device(device)
    if place.type == "cuda":
        return lambda: torch.cuda.synchronize(place)
    if place.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def device_name(device: torch.device | str) -> str:
    """Name of the device for reports, with the model of a GPU."""
    place = torch.device(device)
    return f"{place}: {torch.cuda.get_device_name(place)}" if place.type == "cuda" else str(place)
