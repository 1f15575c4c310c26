"""Taps: rounding tensors for the disk and reading them back.

A channel is axis 1 of a 4-D tap (B, C, H, W) and the last axis of any other; a tap of one number
per sample has a single channel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.errors import DataError
from offramp.features.absent import Lacking, remaining
from offramp.features.moments import Moments

CacheDtype = Literal["float16", "float32"]
FLOAT16_MAX = 65504.0
Places = Sequence[int] | NDArray[np.int64]
"""Places of samples in their data set."""


def channel_view(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in which per-channel numbers broadcast to taps of `shape` (no batch axis)."""
    return (shape[0], 1, 1) if len(shape) == 3 else shape[-1:] or (1,)


def channel_count(shape: tuple[int, ...]) -> int:
    """Number of channels of taps of `shape` (no batch axis)."""
    return channel_view(shape)[0]


def by_channel(values: Tensor) -> Tensor:
    """Taps (B, ...) as rows of one number per channel: (values per channel, C)."""
    if values.dim() == 4:
        return values.movedim(1, -1).flatten(0, -2)
    return values.reshape(-1, values.shape[-1] if values.dim() > 1 else 1)


def scale_for(absmax: Tensor) -> Tensor:
    """Per-channel scale (C,): the power of two at or above the largest magnitude; 1 if that is 0.

    A power of two makes scaling itself exact; only the step to fp16 rounds.
    """
    mantissa, exponent = torch.frexp(absmax)
    power = torch.where(mantissa == 0.5, exponent - 1, exponent).clamp(-100, 126)
    scale = torch.ldexp(torch.ones_like(absmax), power)
    return torch.where(absmax > 0, scale, torch.ones_like(absmax))


def bytes_per_sample(shape: tuple[int, ...], dtype: CacheDtype) -> int:
    """Bytes that one sample of a tap takes on disk."""
    return math.prod(shape) * np.dtype(dtype).itemsize


@dataclass(frozen=True, eq=False)
class TapFormat:
    """Rounding of a tap: divide by its channel's scale, store in `dtype`, multiply back.

    Attributes:
        cut: Name of the cut, for errors.
        shape: Shape of one sample.
        scale: Scale per channel, (C,).
        dtype: float16 or float32.
    """

    cut: str
    shape: tuple[int, ...]
    scale: Tensor
    dtype: CacheDtype

    def encode(self, values: Tensor, places: Places, absent: Lacking = None) -> Tensor:
        """Numbers to store for taps (B, ...), in `dtype`, on the same device.

        Args:
            values: The taps.
            places: Places of their samples, for errors.
            absent: Rows that are NaN because the sample lacks an input.

        Raises:
            DataError: A value is not finite, or too large for fp16 at its channel's scale.
        """
        values = values.float()
        stored = (values / self._scale_on(values.device)).to(getattr(torch, self.dtype))
        given = remaining(stored, absent)
        if not bool(torch.isfinite(given).all()):
            kept = np.arange(len(stored)) if absent is None else np.flatnonzero(~absent)
            raise self._unstorable(remaining(values, absent), given, np.asarray(places)[kept])
        return stored

    def moments(self, stored: Tensor) -> Moments:
        """Moments per channel of the taps (B, ...) that these stored numbers represent.

        They are computed before multiplying by the scale, where float32 cannot overflow.
        """
        if stored.dtype == torch.float16:
            return Moments.of(by_channel(stored).float()).times(self.scale)
        exact = stored.cpu() if stored.device.type == "mps" else stored  # mps has no float64
        return Moments.of(by_channel(exact).double()).times(self.scale)

    def decode(self, stored: Tensor) -> Tensor:
        """Taps (B, ...) float32 from stored numbers, a map with its channels last in memory.

        In this order branches with convolutions train 1.3 times as fast, and others as fast.
        """
        order = torch.channels_last if len(self.shape) == 3 else torch.contiguous_format
        values = stored.to(torch.float32, memory_format=order, copy=True)
        return values.mul_(self._scale_on(stored.device))

    def rounded(self, values: Tensor, places: Places, absent: Lacking = None) -> Tensor:
        """Taps (B, ...) float32, bit for bit as after writing and reading; arguments as `encode`.

        Raises:
            DataError: A value is not finite, or too large for fp16 at its channel's scale.
        """
        return self.decode(self.encode(values, places, absent))

    def _scale_on(self, device: torch.device) -> Tensor:
        return self.scale.to(device).reshape(channel_view(self.shape))

    def _unstorable(self, values: Tensor, stored: Tensor, places: Places) -> DataError:
        bad = ~torch.isfinite(stored)
        row = int(bad.reshape(len(bad), -1).any(dim=1).nonzero()[0])
        place, channel = map(int, by_channel(bad[row : row + 1]).nonzero()[0])
        value = float(by_channel(values[row : row + 1])[place, channel])
        where = f"the tap at {self.cut!r}, channel {channel}, of sample {places[row]}"
        if not math.isfinite(value):
            return DataError(
                f"{where} is {value}: the backbone gives no finite value there. Check that "
                "sample and the backbone's weights."
            )
        scale = float(self.scale[channel])
        return DataError(
            f"{where} is {value:g}, but fp16 stores values up to {FLOAT16_MAX * scale:g} with the "
            f"scale {scale:g}, which was found on a part of the training data. Store the taps with "
            "cache_dtype='float32'."
        )


@dataclass(frozen=True, eq=False)
class TapPiece:
    """A tap of some samples, ready to be written.

    Attributes:
        stored: Numbers to store, (B, ...), contiguous and on the CPU.
        moments: Moments of the taps as they will be read back, but for absent ones.
    """

    stored: Tensor
    moments: Moments

    @classmethod
    def of(cls, form: TapFormat, values: Tensor, places: Places, absent: Lacking = None) -> Self:
        """Round taps (B, ...) of these samples; arguments as `TapFormat.encode`.

        Raises:
            DataError: A value is not finite, or too large for fp16 at its channel's scale.
        """
        stored = form.encode(values, places, absent)
        return cls(stored.cpu().contiguous(), form.moments(remaining(stored, absent)))
