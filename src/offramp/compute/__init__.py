"""What torch modules cost, and the switches and random streams that work runs under."""

from offramp.compute.flops import FlopCounter, count_flops
from offramp.compute.parameters import count_params
from offramp.compute.streams import random_stream, seeded
from offramp.compute.switches import torch_switches
from offramp.compute.timing import measure_ms

__all__ = [
    "FlopCounter",
    "count_flops",
    "count_params",
    "measure_ms",
    "random_stream",
    "seeded",
    "torch_switches",
]
