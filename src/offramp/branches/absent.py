"""Absent side inputs: how they are marked, found and dropped in training."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from offramp.errors import ShapeError

WhereAbsent = Literal["refuse", "token"]
"""What a branch does where a side input is absent: refuse to answer, or use what it has learned."""


def answers_without_sides(spec: Any) -> bool:
    """Whether branches of these settings also answer where side inputs are absent."""
    return getattr(spec, "absent", "refuse") == "token"


def absent_sides(settings: Any, num_sides: int) -> "AbsentSides | None":
    """What finds absent side inputs, for settings under which a branch answers without them.

    Raises:
        ShapeError: The cut has no side inputs.
    """
    if not answers_without_sides(settings):
        return None
    if num_sides == 0:
        raise ShapeError(
            f"{settings.label()} has absent='token', which is for side inputs, but this cut has "
            "none: its only tap is the map. Leave out `absent` here, or give the cut further taps."
        )
    return AbsentSides(settings.drop_side)


class AbsentSides(nn.Module):
    """Finds the absent side inputs of each sample, and in training drops those of some samples.

    A side input is absent where all of its values are NaN, which no other input may hold.

    Shape:
        S sides, each (B, ...) -> (B, S), true where absent or dropped.

    Args:
        drop: Share of the training samples whose side inputs are dropped, all of a sample together.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        # A Dropout, since a branch may draw from nothing else in training.
        self.drop = nn.Dropout(drop) if drop else nn.Identity()

    def forward(self, sides: tuple[Tensor, ...]) -> Tensor:
        """Find and drop."""
        absent = torch.stack([side.flatten(1).isnan().all(dim=1) for side in sides], dim=1)
        kept = self.drop(torch.ones_like(absent[:, :1], dtype=torch.float32))
        either: Tensor = absent | (kept == 0)
        return either


def zeroed(vector: Tensor, absent: Tensor) -> Tensor:
    """Vectors (B, C) with zeros in the rows where `absent` (B, 1) is true."""
    return torch.where(absent, torch.zeros_like(vector), vector)
