"""Board: TensorBoard curves of one branch, always exactly those of its history."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from offramp.multiexit.trial import Epoch


class Board:
    """Writes one scalar per epoch and figure; starting anew first drops what was written before.

    A killed run may have written more than it saved, or less; the history that was saved decides.
    """

    def __init__(self, folder: Path, history: Sequence[Epoch]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here: takes two seconds to import

        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        for epoch in history:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Add one epoch."""
        figures = asdict(epoch)
        step = figures.pop("epoch")
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
