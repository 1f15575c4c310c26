"""Trainee: what the lockstep trains, a learner or several that step as one model."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from offramp.training.learner import Learner, Tensors


class Trainee(Protocol):
    """One or more branches at a cut that take their steps together."""

    @property
    def cut(self) -> str:
        """Where they read."""

    @property
    def learners(self) -> tuple[Learner, ...]:
        """The branches."""

    @property
    def epoch(self) -> int:
        """Epochs that are behind them."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""

    def begin_epoch(self) -> None:
        """Take this epoch's learning rate and start its averages anew."""

    def learn(self, taps: tuple[Tensor, ...], targets: Tensor, step: int) -> None:
        """One step; `step` counts from the start of training."""

    def judge(self, taps: tuple[Tensor, ...], targets: Tensor) -> None:
        """Take in one batch of validation samples."""

    def end_epoch(self) -> None:
        """Close the epoch."""

    def state(self) -> tuple[Tensors, str]:
        """All that going on needs: tensors, and the rest as JSON."""

    def restore(self, tensors: Mapping[str, Tensor], scalars: str) -> None:
        """Go on from what `state` gave."""
