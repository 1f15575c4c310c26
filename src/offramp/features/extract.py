"""Extraction: one pass of a frozen backbone over a data set, in units of a batch."""

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.data import Batch, Samples
from offramp.features.absent import remaining
from offramp.features.moments import Moments
from offramp.features.source import Taps, TapSource
from offramp.features.taps import (
    CacheDtype,
    TapFormat,
    TapPiece,
    by_channel,
    channel_count,
    scale_for,
)
from offramp.progress import Progress

SCALE_SAMPLES = 512
SCALE_SEED = 0

Pieces = tuple[TapPiece, ...]
Scales = Mapping[str, tuple[Tensor, ...]]


def find_scales(
    source: TapSource, dataset: Samples, dtype: CacheDtype, progress: Progress
) -> Scales:
    """Per-channel scales from a seeded sample of at most SCALE_SAMPLES samples; 1 for float32."""
    if dtype == "float32":
        return {
            name: tuple(torch.ones(channel_count(shape)) for shape in shapes)
            for name, shapes in source.shapes.items()
        }

    @torch.no_grad()
    def peaks_of(batch: Batch) -> Taps:
        found, absent = source.taps_of(batch)
        return {
            name: tuple(map(_peaks, map(remaining, taps, absent[name])))
            for name, taps in found.items()
        }

    peaks: Taps = {}
    order = _scale_sample(len(dataset))
    with closing(source.stream(peaks_of, dataset, order)) as found:
        for here, done in found:
            for name, values in here.items():
                before = peaks.get(name, values)
                peaks[name] = tuple(map(torch.maximum, before, values))
            progress("scales of the taps", done, len(order))
    return {name: tuple(map(scale_for, values)) for name, values in peaks.items()}


def _peaks(tap: Tensor) -> Tensor:
    """Largest magnitude (C,) of each channel of a tap (B, ...); 0 without samples."""
    values = by_channel(tap.float().abs())
    return values.amax(dim=0).cpu() if len(values) else torch.zeros(values.shape[1])


def formats(
    source: TapSource, scales: Scales, dtype: CacheDtype
) -> dict[str, tuple[TapFormat, ...]]:
    """Formats in which each cut's taps are rounded."""
    return {
        name: tuple(
            TapFormat(name, shape, scale, dtype)
            for shape, scale in zip(shapes, scales[name], strict=True)
        )
        for name, shapes in source.shapes.items()
    }


@dataclass(frozen=True, eq=False)
class Extraction:
    """Resources for extracting taps: the backbone, the samples, and the rounding."""

    source: TapSource
    dataset: Samples
    forms: Mapping[str, tuple[TapFormat, ...]]

    @torch.no_grad()  # taps in inference mode, but the results can be trained on
    def pieces(self, batch: Batch) -> Pieces:
        """Rounded taps of a batch: one piece per tap, in the order of the cuts."""
        taps, absent = self.source.taps_of(batch)
        return tuple(
            TapPiece.of(form, value, batch.rows, lacking)
            for name, forms in self.forms.items()
            for form, value, lacking in zip(forms, taps[name], absent[name], strict=True)
        )

    def stream(self, rows: NDArray[np.int64]) -> Generator[tuple[Pieces, int]]:
        """Pieces of these samples by batch, with the number of samples done."""
        return self.source.stream(self.pieces, self.dataset, rows)


@dataclass(frozen=True)
class ShardRange:
    """Samples `first` to `stop` - 1 of a data set, whose taps are one shard."""

    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class Shard:
    """Rounded taps of a range of samples.

    Attributes:
        taps: Pieces of each tap, in the order of the samples.
        sha256: SHA-256 of each tap's bytes, in hex.
    """

    taps: tuple[tuple[TapPiece, ...], ...]
    sha256: tuple[str, ...]

    @classmethod
    def of(cls, passes: Iterable[Pieces]) -> Self:
        """Gather the pieces of batches and hash them."""
        digests = defaultdict[int, Any](hashlib.sha256)
        gathered = []
        for pieces in passes:
            for tap, piece in enumerate(pieces):
                digests[tap].update(piece.stored.numpy().data)
            gathered.append(pieces)
        return cls(
            tuple(zip(*gathered, strict=True)), tuple(d.hexdigest() for d in digests.values())
        )

    def of_taps(self, numbers: Sequence[int]) -> Self:
        """The same shard with only these of its taps."""
        return type(self)(
            tuple(self.taps[number] for number in numbers),
            tuple(self.sha256[number] for number in numbers),
        )

    def moments(self, before: Sequence[Moments] | None) -> tuple[Moments, ...]:
        """Moments of each tap up to and including this shard, merged batch by batch."""
        batches = [tuple(piece.moments for piece in each) for each in zip(*self.taps, strict=True)]
        return reduce(_merged, batches if before is None else [tuple(before), *batches])


def _merged(before: tuple[Moments, ...], here: tuple[Moments, ...]) -> tuple[Moments, ...]:
    """Merged moments of each tap."""
    return tuple(map(Moments.plus, before, here))


def extract_taps(
    ranges: Sequence[ShardRange], resources: Extraction, progress: Progress
) -> Generator[Shard]:
    """Shards in order, with the batches of all of them in one stream of units of work.

    All workers are busy from the first batch to the last, and at most `Executor.ahead` batches wait
    beside the shard that is being gathered. With shards as units, workers would idle at the end and
    hold one shard each in memory.

    Raises:
        DataError: A tap holds a value that is not finite or that fp16 cannot hold.
    """
    rows = np.concatenate([np.arange(each.first, each.stop) for each in ranges])
    size, total = resources.source.batch_size, len(resources.dataset)
    with closing(resources.stream(rows)) as found:

        def reported() -> Iterator[Pieces]:
            for pieces, done in found:
                progress("taps", ranges[0].first + done, total)
                yield pieces

        passes = reported()
        for each in ranges:
            yield Shard.of(islice(passes, -(-(each.stop - each.first) // size)))


def statistics_of(
    source: TapSource,
    dataset: Samples,
    scales: Scales,
    dtype: CacheDtype,
    progress: Progress,
) -> dict[str, tuple[tuple[Tensor, Tensor], ...]]:
    """Mean and standard deviation (C,), float64, of each cut's taps as a cache would hold them.

    The numbers are those of a cache, bit for bit, but nothing is written.

    Raises:
        DataError: A tap holds a value that is not finite or that fp16 cannot hold.
    """
    forms = formats(source, scales, dtype)
    found: tuple[Moments, ...] = ()
    rows = np.arange(len(dataset))
    with closing(Extraction(source, dataset, forms).stream(rows)) as passes:
        for pieces, done in passes:
            here = tuple(piece.moments for piece in pieces)
            found = _merged(found, here) if found else here
            progress("statistics of the taps", done, len(dataset))
    each = iter(found)
    return {name: tuple((m.mean, m.std) for m in islice(each, len(f))) for name, f in forms.items()}


def _scale_sample(count: int) -> NDArray[np.int64]:
    """A seeded random sample of at most SCALE_SAMPLES of the rows, regardless of labels.

    Only the order of magnitude of a channel's peak is needed: fp16 holds 65,504 times the scale, so
    larger peaks in other samples still fit.
    """
    if count <= SCALE_SAMPLES:
        return np.arange(count)
    rng = np.random.default_rng(SCALE_SEED)
    return np.sort(rng.choice(count, SCALE_SAMPLES, replace=False))
