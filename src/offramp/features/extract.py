"""Extraction: one pass of a frozen backbone over a data set, up to the last cut that is needed."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from typing import Any, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.folding import quickened
from offramp.backbones.stage import Stage
from offramp.backbones.staged import StagedBackbone
from offramp.data import Batch, Samples
from offramp.errors import ShapeError
from offramp.features.executor import Executor
from offramp.features.moments import Moments
from offramp.features.taps import (
    CacheDtype,
    TapFormat,
    TapPiece,
    by_channel,
    channel_count,
    scale_for,
)
from offramp.progress import Progress
from offramp.spec import dims

SCALE_SAMPLES = 512
SCALE_SEED = 0
READERS = 4
"""Threads that read the data ahead of an accelerator."""

Taps = dict[str, tuple[Tensor, ...]]
Pieces = tuple[TapPiece, ...]
Result = TypeVar("Result")
Scales = Mapping[str, tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class TapSource:
    """The first stages of a backbone, ready on a device to give the taps of some cuts.

    Attributes:
        stages: Up to the last cut that is wanted, no further.
        names: Of the cuts that end them.
        shapes: Of each wanted cut's taps, without the batch axis.
    """

    stages: tuple[nn.Module, ...]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    input_shapes: tuple[tuple[int, ...], ...]
    device: torch.device
    executor: Executor

    @classmethod
    def of(
        cls,
        backbone: StagedBackbone,
        cuts: Sequence[str],
        device: torch.device,
        executor: Executor,
    ) -> Self:
        """Take quicker copies of the stages up to the last of `cuts`; the backbone stays as it is.

        Their taps differ from the stages' by at most 1e-4 of a tap's greatest value.
        """
        last = max(backbone.cuts.index(name) for name in cuts)
        stages = cast(Sequence[Stage], list(backbone.stages)[: last + 1])
        quick = quickened(stages, backbone.input_shapes, device)
        shapes = {
            name: tuple(map(dims, backbone.tap_shapes[name]))
            for name in backbone.cuts
            if name in cuts
        }
        names = tuple(backbone.cuts[: last + 1])
        return cls(tuple(quick), names, shapes, backbone.input_shapes, device, executor)

    @property
    def batch_size(self) -> int:
        """Samples per pass."""
        return batch_size_on(self.device)

    @torch.inference_mode()
    def taps(self, inputs: tuple[Tensor, ...]) -> Taps:
        """Taps of every wanted cut for a batch of inputs.

        Raises:
            ShapeError: The inputs are not of the shape that the backbone was cut for.
        """
        check_shapes(tuple(tuple(values.shape[1:]) for values in inputs), self.input_shapes)
        live, found = tuple(values.to(self.device) for values in inputs), {}
        for name, stage in zip(self.names, self.stages, strict=True):
            live, taps = stage(live)
            if name in self.shapes:
                found[name] = taps
        return found

    def stream(
        self, work: Callable[[Batch], Result], dataset: Samples, order: NDArray[np.int64]
    ) -> Generator[tuple[Result, int]]:
        """Work's results for the samples at `order` batch by batch, and how many are done.

        On the CPU the workers also read our own data sets, elsewhere threads of their own do. A
        user's data set may belong to one thread, so the caller's reads it, ahead of the work.
        """
        size = self.batch_size
        chunks = (order[start : start + size] for start in range(0, len(order), size))

        def read(rows: NDArray[np.int64]) -> Batch:
            with _named(rows):
                return dataset.read(rows)

        def worked(batch: Batch) -> Result:
            with _named(batch.rows):
                return work(batch)

        if not dataset.threadsafe:
            results = self.executor.stream(worked, map(read, chunks))
        elif self.device.type == "cpu":
            results = self.executor.stream(lambda rows: worked(read(rows)), chunks)
        else:
            results = self.executor.stream(worked, _read_ahead(read, chunks))
        done = 0
        for result in results:
            done = min(done + size, len(order))
            yield result, done


@contextmanager
def _named(rows: NDArray[np.int64]) -> Iterator[None]:
    """Whatever fails within says at which samples."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened in the batch of samples {rows[0]} to {rows[-1]}.")
        raise


def _read_ahead(
    read: Callable[[NDArray[np.int64]], Batch], chunks: Iterable[NDArray[np.int64]]
) -> Iterator[Batch]:
    with ThreadPoolExecutor(READERS) as pool:
        try:
            yield from Executor(pool, READERS).stream(read, chunks)
        finally:
            pool.shutdown(cancel_futures=True)


def batch_size_on(device: torch.device) -> int:
    """Samples per pass: few on a CPU, whose caches hold the large early maps of few samples."""
    return 16 if device.type == "cpu" else 128


def check_shapes(given: tuple[tuple[int, ...], ...], expected: tuple[tuple[int, ...], ...]) -> None:
    """Refuse inputs of another shape than the backbone was cut for, both without the batch axis.

    Raises:
        ShapeError: With both shapes.
    """
    if given != expected:
        raise ShapeError(
            f"the data gives inputs of shape {given}, but the backbone was cut with a sample of "
            f"shape {expected} (without the batch axis). Prepare the data in that size, or cut "
            "the backbone with a sample of this one."
        )


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
        return {
            name: tuple(by_channel(tap.float().abs()).amax(dim=0).cpu() for tap in taps)
            for name, taps in source.taps(batch.inputs).items()
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


def formats(
    source: TapSource, scales: Scales, dtype: CacheDtype
) -> dict[str, tuple[TapFormat, ...]]:
    """How each cut's taps are rounded."""
    return {
        name: tuple(
            TapFormat(name, shape, scale, dtype)
            for shape, scale in zip(shapes, scales[name], strict=True)
        )
        for name, shapes in source.shapes.items()
    }


@dataclass(frozen=True, eq=False)
class Extraction:
    """What a machine that extracts shards holds: the backbone, the samples, and the rounding."""

    source: TapSource
    dataset: Samples
    forms: Mapping[str, tuple[TapFormat, ...]]

    @torch.no_grad()  # taps in inference mode, but what comes of them can be trained on
    def pieces(self, batch: Batch) -> Pieces:
        """Rounded taps of a batch: one piece per tap, cut after cut."""
        taps = self.source.taps(batch.inputs)
        return tuple(
            TapPiece.of(form, value, batch.rows)
            for name, forms in self.forms.items()
            for form, value in zip(forms, taps[name], strict=True)
        )

    def stream(self, rows: NDArray[np.int64]) -> Generator[tuple[Pieces, int]]:
        """Pieces of these samples batch by batch, with the number of samples done."""
        return self.source.stream(self.pieces, self.dataset, rows)


@dataclass(frozen=True)
class ExtractShard:
    """A unit of work: the taps of samples `first` to `stop` - 1 of a data set."""

    first: int
    stop: int

    def run(self, resources: Extraction, /) -> "Shard":
        """Extract it in this thread.

        Raises:
            DataError: A tap holds a value that is not finite or that fp16 cannot hold.
        """
        rows, size = np.arange(self.first, self.stop), resources.source.batch_size
        passes = resources.dataset.batches(size, order=rows)
        return Shard.of(map(resources.pieces, passes))


@dataclass(frozen=True, eq=False)
class Shard:
    """Rounded taps of a range of samples.

    Attributes:
        taps: Of each tap, its pieces in the order of the samples.
        sha256: Of each tap's bytes, in hex.
    """

    taps: tuple[tuple[TapPiece, ...], ...]
    sha256: tuple[str, ...]

    @classmethod
    def of(cls, passes: Iterable[Pieces]) -> Self:
        """Gather the pieces of batches, hashing each as it comes."""
        digests = defaultdict[int, Any](hashlib.sha256)
        gathered = []
        for pieces in passes:
            for tap, piece in enumerate(pieces):
                digests[tap].update(piece.stored.numpy().data)
            gathered.append(pieces)
        return cls(
            tuple(zip(*gathered, strict=True)), tuple(d.hexdigest() for d in digests.values())
        )

    def moments(self, before: Sequence[Moments] | None) -> tuple[Moments, ...]:
        """Of each tap's samples before this shard and in it, merged batch by batch."""
        batches = [tuple(piece.moments for piece in each) for each in zip(*self.taps, strict=True)]
        return reduce(_merged, batches if before is None else [tuple(before), *batches])


def _merged(before: tuple[Moments, ...], here: tuple[Moments, ...]) -> tuple[Moments, ...]:
    """Of each tap."""
    return tuple(map(Moments.plus, before, here))


def extract(
    units: Sequence[ExtractShard], resources: Extraction, progress: Progress
) -> Generator[Shard]:
    """What the units' own `run` gives, in order, with the batches of all of them in one stream.

    So all workers are busy from the first batch to the last, where units that are run one by one
    would wait for each other, or for the one that ends last.

    Raises:
        DataError: A tap holds a value that is not finite or that fp16 cannot hold.
    """
    rows = np.concatenate([np.arange(unit.first, unit.stop) for unit in units])
    size, total = resources.source.batch_size, len(resources.dataset)
    with closing(resources.stream(rows)) as found:

        def told() -> Iterator[Pieces]:
            for pieces, done in found:
                progress("taps", units[0].first + done, total)
                yield pieces

        passes = told()
        for unit in units:
            yield Shard.of(islice(passes, -(-(unit.stop - unit.first) // size)))


def statistics_of(
    source: TapSource,
    dataset: Samples,
    scales: Scales,
    dtype: CacheDtype,
    progress: Progress,
) -> dict[str, tuple[tuple[Tensor, Tensor], ...]]:
    """Mean and standard deviation (C,), float64, of each cut's taps as a cache would hold them.

    Nothing is written; the numbers are those of the cache, bit for bit.

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
    if count <= SCALE_SAMPLES:
        return np.arange(count)
    rng = np.random.default_rng(SCALE_SEED)
    return np.sort(rng.choice(count, SCALE_SAMPLES, replace=False))
