"""Dropout with its own random generator, so that branches can train in parallel."""

import torch
from torch import Tensor, nn


class OwnDropout(nn.Module):
    """Drops a share of its input in training and scales the rest up: (...) to (...)."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.rate, self._generator = rate, generator

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop in training, pass on otherwise."""
        if not self.training:
            return inputs
        keep = torch.empty_like(inputs).bernoulli_(1 - self.rate, generator=self._generator)
        return inputs * keep.div_(1 - self.rate)


def own_dropout(branch: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout of a branch draw from `generator` instead of torch's global one."""
    for parent in list(branch.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, OwnDropout(child.p, generator))


def plain_dropout(branch: nn.Module) -> None:
    """Undo `own_dropout`."""
    for parent in list(branch.modules()):
        for name, child in parent.named_children():
            if isinstance(child, OwnDropout):
                setattr(parent, name, nn.Dropout(child.rate))
