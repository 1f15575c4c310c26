"""Plateau: when the learning rate falls and when training stops, from validation losses alone."""

import math
from dataclasses import dataclass, replace
from typing import Self

from offramp.training.settings import TrainSettings


@dataclass(frozen=True)
class Plateau:
    """Where a branch stands after some epochs.

    Counting follows Keras, which the paper used: with a patience of 2, the second epoch in a row
    without a lower loss is the one that acts. Lower means strictly lower than ever before.

    Attributes:
        lr: Learning rate for the next epoch.
        epoch: Epochs done.
        best_epoch: The one with the least validation loss, counted from 1; 0 before any.
        flat_epochs: Since the last lower loss or fall of the learning rate.
        stopped: No further epoch.
    """

    lr: float
    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    flat_epochs: int = 0
    stopped: bool = False

    @property
    def improved(self) -> bool:
        """Whether the last epoch gave the least loss so far."""
        return self.epoch > 0 and self.best_epoch == self.epoch

    def after(self, loss: float, settings: TrainSettings) -> Self:
        """Where the branch stands after one more epoch, with this validation loss."""
        epoch = self.epoch + 1
        last = epoch >= settings.epochs
        if loss < self.best_loss:
            return replace(
                self, epoch=epoch, best_loss=loss, best_epoch=epoch, flat_epochs=0, stopped=last
            )
        flat = self.flat_epochs + 1
        falls = flat >= settings.lr_patience
        return replace(
            self,
            epoch=epoch,
            lr=self.lr * settings.lr_factor if falls else self.lr,
            flat_epochs=0 if falls else flat,
            stopped=last
            or epoch - self.best_epoch >= settings.stop_patience
            or not math.isfinite(loss),
        )
