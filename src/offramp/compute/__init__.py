"""Costs of torch modules, torch's switches, and random streams."""

from offramp.compute.device import device_name, wait_for
from offramp.compute.flops import FlopCounter, count_flops
from offramp.compute.parameters import count_params
from offramp.compute.rehearsal import rehearse
from offramp.compute.streams import random_stream, seeded
from offramp.compute.switches import torch_switches

__all__ = [
    "FlopCounter",
    "count_flops",
    "count_params",
    "device_name",
    "random_stream",
    "rehearse",
    "seeded",
    "torch_switches",
    "wait_for",
]
