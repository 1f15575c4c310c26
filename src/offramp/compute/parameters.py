"""Counts the parameters of a torch module."""

from torch import nn


def count_params(module: nn.Module) -> int:
    """Elements of all parameters, frozen ones too, each counted once however often it is used."""
    return sum(parameter.numel() for parameter in module.parameters())
