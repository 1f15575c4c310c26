"""Random streams: each piece of work has its own, named by the work, not by its order."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch

_ALONE = threading.RLock()


def random_stream(*key: str | int) -> int:
    """A 63-bit seed for this key, the same in every process and on every machine.

    Keys that differ in any part, in order or in type (1 and "1") give unrelated seeds.
    """
    digest = sha256(json.dumps(key, ensure_ascii=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(*key: str | int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device` with `key`, and restore them afterwards.

    Only one thread at a time can be in the block, since all threads share these generators. Other
    devices' generators are not changed. The CPU's generator uses the seed's lower 32 bits, so among
    10,000 keys two share a stream with a probability of 1 in 90.
    """
    place = torch.device(device)
    seed = random_stream(*key)
    with _ALONE, torch.random.fork_rng(devices=[]), _device_generator(place, seed):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def _device_generator(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generator of an accelerator and put its state back."""
    if device.type == "cpu":
        yield
        return
    state = _state(device)
    try:
        _accelerator_seed(device, seed)
        yield
    finally:
        _set_state(device, state)


def _state(device: torch.device) -> torch.Tensor:
    return torch.mps.get_rng_state() if device.type == "mps" else torch.cuda.get_rng_state(device)


def _set_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)


def _accelerator_seed(device: torch.device, seed: int) -> None:
    if device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
