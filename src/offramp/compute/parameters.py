"""Counts the parameters of a torch module."""

from torch import nn


def count_params(module: nn.Module) -> int:
    """Number of elements of all parameters, also frozen ones; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())
