"""Mel filters: triangles that sum the frequencies of a transform."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from offramp.spec import Spec

_LONGEST = 1 << 16  # samples of the longest transform that an error suggests


class MelBins(Spec):
    """A bank of triangular filters, evenly spaced and linear on HTK's mel scale.

    Attributes:
        count: Number of filters.
        low_hz: Start of the first filter.
        high_hz: End of the last filter; None is half the sampling rate.
        allow_empty: Whether some filters may have no frequency of the transform in them, for a
            network that was trained with such constant columns, as AST was (Gong et al. 2021).
    """

    count: PositiveInt
    low_hz: NonNegativeFloat = 0.0
    high_hz: PositiveFloat | None = None
    allow_empty: bool = False

    def top_hz(self, rate: int) -> float:
        """End of the last filter, for sounds with `rate` samples per second."""
        return rate / 2 if self.high_hz is None else self.high_hz


@lru_cache(maxsize=16)  # computed for each sound, they took half of the time of GTZAN's chain
def mel_filters(bins: MelBins, fft: int, rate: int) -> NDArray[np.float64]:
    """Weights (fft // 2 + 1, count) of each frequency in each filter, read-only.

    The constant part of a sound (0 Hz) belongs to no filter, as in VGGish.
    """
    frequencies, edges = _frequencies(fft, rate)[:, None], _edges(bins, rate)
    low, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequencies - low) / (centre - low)
    falling = (upper - frequencies) / (upper - centre)
    weights: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0
    weights.flags.writeable = False  # all callers share it
    return weights


def mel_fault(bins: MelBins, fft: int, rate: int) -> str:
    """What is wrong with the filters of a transform of this length; empty if nothing is."""
    low, top = bins.low_hz, bins.top_hz(rate)
    if top > rate / 2:
        return f"has high_hz {top:g}, but must end at half of `rate` at most, {rate / 2:g} Hz"
    if low >= top:
        end = "half of `rate`" if bins.high_hz is None else "high_hz"
        return f"has low_hz {low:g}, but must start below {end}, {top:g} Hz"
    empty = _num_empty(bins, fft, rate)
    if empty == 0 or (bins.allow_empty and empty < bins.count):
        return ""
    return (
        f"leaves {empty} of {bins.count} filters without any of the transform's frequencies, which "
        f"are {rate / fft:.3g} Hz apart, and an empty filter gives a constant column. "
        f"{_remedy(bins, fft, rate)}"
        + ", or allow_empty to true if the network was trained with them"
        * (empty < bins.count)
    )


def _remedy(bins: MelBins, fft: int, rate: int) -> str:
    """The shortest transform, a power of two, and the largest count without empty filters."""
    lengths = [1 << power for power in range(fft.bit_length(), _LONGEST.bit_length())]
    length = next((each for each in lengths if not _num_empty(bins, each, rate)), None)
    fewer = (bins.model_copy(update={"count": n}) for n in range(min(bins.count, fft), 0, -1))
    count = next((each.count for each in fewer if not _num_empty(each, fft, rate)), None)
    found = {"fft": length, "count": count}
    ways = [f"{name} to {value}" for name, value in found.items() if value is not None]
    return "Set " + (" or ".join(ways) or "low_hz and high_hz further apart")


def _num_empty(bins: MelBins, fft: int, rate: int) -> int:
    """Number of filters that no frequency lies in, apart from 0 Hz."""
    frequencies, edges = _frequencies(fft, rate)[1:], _edges(bins, rate)
    below = np.searchsorted(frequencies, edges[:-2], side="right")
    inside = np.searchsorted(frequencies, edges[2:], side="left") - below
    return int((inside <= 0).sum())


def _frequencies(fft: int, rate: int) -> NDArray[np.float64]:
    """(fft // 2 + 1,) frequencies of a transform, in mel."""
    return _mel(np.linspace(0, rate / 2, fft // 2 + 1))


def _edges(bins: MelBins, rate: int) -> NDArray[np.float64]:
    """(count + 2,) edges of the filters, in mel; filter k has its middle at edge k + 1."""
    return np.linspace(_mel(bins.low_hz), _mel(bins.top_hz(rate)), bins.count + 2)


def _mel(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """HTK's scale."""
    return np.asarray(1127 * np.log1p(np.asarray(hz) / 700))
