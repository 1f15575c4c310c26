"""Moments: mean and spread per channel, gathered chunk by chunk in float64."""

import torch
from torch import Tensor


class Moments:
    """Mean and standard deviation (C,) of rows (N, C) seen so far (merged as Chan et al., 1979)."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in more rows, (N, C)."""
        values = rows.double()
        count, mean = len(values), values.mean(dim=0)
        squares = (values - mean).square().sum(dim=0)
        step, total = mean - self.mean, self._count + count
        self.mean = self.mean + step * (count / total)
        self._squares = self._squares + squares + step.square() * (self._count * count / total)
        self._count = total

    @property
    def std(self) -> Tensor:
        """Standard deviation, dividing by the number of rows."""
        return (self._squares / max(self._count, 1)).sqrt()
