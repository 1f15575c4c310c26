"""Supply: the source of taps and targets for training steps, either disk or backbone."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.augment import Augment, augmented
from offramp.data.samples import Samples
from offramp.features import FeatureCache, LiveTaps, Taps


class Supply(Protocol):
    """Taps of some cuts for N samples, with targets, in batches."""

    @property
    def cuts(self) -> tuple[str, ...]:
        """Whose taps are given."""

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64], epoch: int) -> tuple[Taps, Tensor]:
        """Taps (B, ...) of each cut and targets (B,) of these samples in an epoch, from 1."""


@dataclass(frozen=True, eq=False)
class StoredSupply:
    """Taps read from a cache, which with augmentation holds every view of every sample."""

    cache: FeatureCache
    cuts: tuple[str, ...]
    targets: Tensor
    device: torch.device
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, rows: NDArray[np.int64], epoch: int) -> tuple[Taps, Tensor]:
        """Read from disk, from the part of the cache that holds this epoch's view."""
        view = self.augment.view_in(epoch) if self.augment else 0
        places = rows + view * len(self)
        taps = {
            cut: tuple(tap.to(self.device) for tap in self.cache.batch(cut, places))
            for cut in self.cuts
        }
        return taps, _rows(self.targets, rows, self.device)


@dataclass(frozen=True, eq=False)
class LiveSupply:
    """Taps that the backbone computes whenever they are needed."""

    live: LiveTaps
    dataset: Samples
    targets: Tensor
    augment: Augment | None = None

    @property
    def cuts(self) -> tuple[str, ...]:
        """Whose taps are given."""
        return self.live.cuts

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, rows: NDArray[np.int64], epoch: int) -> tuple[Taps, Tensor]:
        """Run the backbone."""
        dataset = self.dataset
        if self.augment is not None:
            dataset = augmented(dataset, self.augment, self.augment.view_in(epoch))
        return self.live.taps(dataset, rows), _rows(self.targets, rows, self.live.device)


def _rows(targets: Tensor, rows: NDArray[np.int64], device: torch.device) -> Tensor:
    return targets[torch.from_numpy(rows)].to(device)
