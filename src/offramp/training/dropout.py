"""Dropout from a generator of its own, so that branches can train side by side."""

from collections.abc import Sequence
from typing import Any

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
        return inputs * _mask(inputs, self.rate, self._generator)


def _mask(inputs: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    keep = torch.empty_like(inputs).bernoulli_(1 - rate, generator=generator)
    return keep.div_(1 - rate)


class GroupDropout(nn.Module):
    """The `OwnDropout` of several branches in one model under vmap: (...) each to (...) each.

    Every branch draws from its own generator what it would draw apart.

    Attributes:
        generators: One per branch, in the order of the batched weights. Its owner may change it.
    """

    def __init__(self, rate: float, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.rate, self.generators = rate, generators

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop in training, pass on otherwise."""
        if not self.training:
            return inputs
        masks: Tensor = _Masks.apply(inputs.detach(), self.rate, self.generators)
        return inputs * masks


class _Masks(torch.autograd.Function):
    """Sees all branches' inputs at once under vmap, where a module sees one branch's."""

    @staticmethod
    def forward(inputs: Tensor, rate: float, generators: Sequence[torch.Generator]) -> Tensor:
        """One branch, no vmap."""
        [generator] = generators
        return _mask(inputs, rate, generator)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """No gradient goes through a mask."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Sequence[Any],
        inputs: Tensor,
        rate: float,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, int]:
        """A mask per branch."""
        each = zip(inputs.unbind(in_dims[0]), generators, strict=True)
        return torch.stack([_mask(branch, rate, generator) for branch, generator in each]), 0


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


def group_dropout(branch: nn.Module, generators: Sequence[torch.Generator]) -> None:
    """Let every `OwnDropout` draw for several branches under vmap."""
    for parent in list(branch.modules()):
        for name, child in parent.named_children():
            if isinstance(child, OwnDropout):
                setattr(parent, name, GroupDropout(child.rate, generators))
