"""Density maps: for each sample a map whose sum is the count, beside the count itself."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data.given import as_samples
from offramp.data.prepared import joined_digests
from offramp.data.samples import Batch, Samples, Source
from offramp.errors import DataError, ShapeError


class DensitySource(Source):
    """A source whose samples have density maps; their targets are the counts."""

    @property
    @abstractmethod
    def map_shape(self) -> tuple[int, int]:
        """Height and width of every map."""

    @abstractmethod
    def maps(self, rows: NDArray[np.int64]) -> Tensor:
        """Maps (B, h, w) of the samples at these places, float32."""


class HeldMaps(DensitySource):
    """Another source with maps (N, h, w) that are held in memory."""

    def __init__(self, source: Source, maps: NDArray[np.float32]) -> None:
        self._source, self._maps = source, maps
        self.threadsafe, self.may_fail = source.threadsafe, source.may_fail
        self.finite = source.finite

    def __len__(self) -> int:
        return len(self._maps)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """See Source."""
        return self._source.read(rows)

    @property
    def targets(self) -> NDArray[Any]:
        """See Source."""
        return self._source.targets

    @property
    def digests(self) -> NDArray[np.str_]:
        """See Source."""
        own = [hashlib.sha256(each.tobytes()).hexdigest() for each in self._maps]
        return joined_digests([self._source.digests, np.array(own, np.str_)])

    @property
    def settings(self) -> str:
        """See Source."""
        return self._source.settings

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """See Source."""
        return self._source.input_shapes

    @property
    def map_shape(self) -> tuple[int, int]:
        """See DensitySource."""
        height, width = self._maps.shape[1:]
        return height, width

    def maps(self, rows: NDArray[np.int64]) -> Tensor:
        """See DensitySource."""
        return torch.from_numpy(self._maps[rows])


def with_maps(data: Any, maps: NDArray[Any] | Tensor | Sequence[Any]) -> Samples:
    """Samples that have a density map each.

    Args:
        data: A data set of N samples, as `as_samples` takes it, whose targets are counts.
        maps: (N, h, w), in the order of the samples.

    Raises:
        ShapeError: There is not one map for each sample, or they are not of one shape.
        DataError: A value is not finite.
    """
    samples = as_samples(data)
    try:
        held = np.ascontiguousarray(np.stack([np.asarray(each, np.float32) for each in maps]))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"the density maps are not arrays of numbers of one shape: {error}. Give one map "
            "(height, width) for each sample."
        ) from error
    if held.ndim != 3 or len(held) != len(samples):
        raise ShapeError(
            f"the density maps have shape {held.shape} for {len(samples)} samples. Give one map "
            "(height, width) for each sample."
        )
    if not np.isfinite(held).all():
        raise DataError("a density map holds NaN or infinite values. Correct it or leave it out.")
    placed = np.zeros((len(samples.source), *held.shape[1:]), np.float32)
    placed[samples.rows] = held
    return replace(samples, source=HeldMaps(samples.source, placed))


def map_shape(samples: Samples) -> tuple[int, int]:
    """Height and width of the density maps of samples.

    Raises:
        DataError: They have none.
    """
    return _source_of(samples).map_shape


def maps_of(samples: Samples, rows: NDArray[np.int64]) -> Tensor:
    """Density maps (B, h, w) of the samples at these places.

    Raises:
        DataError: They have none.
    """
    return _source_of(samples).maps(samples.rows[rows])


def _source_of(samples: Samples) -> DensitySource:
    if not isinstance(samples.source, DensitySource):
        raise DataError(
            "these samples have no density maps, which training on densities needs. Give data that "
            "has them, or leave `density` out of the plan to train on counts alone."
        )
    return samples.source
