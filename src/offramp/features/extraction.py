"""Extraction: one pass of a frozen backbone over a data set, up to the last cut that is needed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.folding import quickened
from offramp.backbones.stage import Stage
from offramp.backbones.staged import StagedBackbone
from offramp.data.batches import Batch, batches
from offramp.data.samples import MapDataset
from offramp.errors import ShapeError
from offramp.features.moments import Moments
from offramp.features.tap import (
    CacheDtype,
    TapFormat,
    TapMeta,
    TapPiece,
    TapWriter,
    by_channel,
    scale_for,
)
from offramp.features.workers import Workers
from offramp.progress import Progress
from offramp.spec import dims

SCALE_SAMPLES = 512
SCALE_SEED = 0

Taps = dict[str, tuple[Tensor, ...]]
Pieces = dict[str, tuple[TapPiece, ...]]
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
    workers: Workers

    @classmethod
    def of(
        cls,
        backbone: StagedBackbone,
        cuts: Sequence[str],
        device: torch.device,
        workers: Workers,
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
        return cls(tuple(quick), names, shapes, backbone.input_shapes, device, workers)

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
        check_inputs(inputs, self.input_shapes)
        live, found = tuple(values.to(self.device) for values in inputs), {}
        for name, stage in zip(self.names, self.stages, strict=True):
            live, taps = stage(live)
            if name in self.shapes:
                found[name] = taps
        return found

    def walk(self, dataset: MapDataset, order: NDArray[np.int64]) -> Iterator[tuple[Taps, int]]:
        """Taps of the samples at `order` batch by batch, with the number of samples done."""
        return self._stream(lambda batch: self.taps(batch.inputs), dataset, order)

    def pieces(
        self, dataset: MapDataset, forms: Mapping[str, tuple[TapFormat, ...]]
    ) -> Iterator[tuple[Pieces, int]]:
        """Rounded taps of all samples batch by batch, with the number of samples done.

        Raises:
            DataError: A tap holds a value that is not finite or that fp16 cannot hold.
        """

        @torch.no_grad()  # taps in inference mode, but what comes of them can be trained on
        def rounded(batch: Batch) -> Pieces:
            return {
                name: tuple(
                    TapPiece.of(form, value, batch.indices)
                    for form, value in zip(forms[name], values, strict=True)
                )
                for name, values in self.taps(batch.inputs).items()
            }

        return self._stream(rounded, dataset, np.arange(len(dataset)))

    def _stream(
        self, work: Callable[[Batch], Result], dataset: MapDataset, order: NDArray[np.int64]
    ) -> Iterator[tuple[Result, int]]:
        done = 0
        for result in self.workers.stream(work, batches(dataset, self.batch_size, order=order)):
            done = min(done + self.batch_size, len(order))
            yield result, done


def batch_size_on(device: torch.device) -> int:
    """Samples per pass: few on a CPU, whose caches hold the large early maps of few samples."""
    return 16 if device.type == "cpu" else 128


def check_inputs(inputs: tuple[Tensor, ...], expected: tuple[tuple[int, ...], ...]) -> None:
    """Refuse inputs of another shape than the backbone was cut for.

    Raises:
        ShapeError: With both shapes.
    """
    given = tuple(tuple(values.shape[1:]) for values in inputs)
    if given != expected:
        raise ShapeError(
            f"the data gives inputs of shape {given}, but the backbone was cut with a sample of "
            f"shape {expected} (without the batch axis). Prepare the data in that size, or cut "
            "the backbone with a sample of this one."
        )


def find_scales(source: TapSource, dataset: MapDataset, progress: Progress) -> Scales:
    """Per-channel scales from a seeded sample of at most SCALE_SAMPLES samples."""
    peaks: dict[str, tuple[Tensor, ...]] = {}
    order = _scale_sample(len(dataset))
    for taps, done in source.walk(dataset, order):
        for name, values in taps.items():
            here = tuple(by_channel(tap.float().abs()).amax(dim=0).cpu() for tap in values)
            before = peaks.get(name, here)
            peaks[name] = tuple(torch.maximum(a, b) for a, b in zip(before, here, strict=True))
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


def write_taps(
    source: TapSource,
    dataset: MapDataset,
    folder: Path,
    scales: Scales,
    dtype: CacheDtype,
    progress: Progress,
) -> dict[str, tuple[TapMeta, ...]]:
    """Write one file per cut and tap into `folder`, samples in the data set's order.

    Raises:
        DataError: A tap holds a value that is not finite or that fp16 cannot hold.
        OSError: The disk is full or takes no more.
    """
    forms = formats(source, scales, dtype)
    with ExitStack() as stack:
        writers = {
            name: [
                stack.enter_context(TapWriter(folder / f"{cut}-{tap}.bin", form))
                for tap, form in enumerate(group)
            ]
            for cut, (name, group) in enumerate(forms.items())
        }
        for pieces, done in source.pieces(dataset, forms):
            for name, group in pieces.items():
                for writer, piece in zip(writers[name], group, strict=True):
                    writer.append(piece)
            progress("taps", done, len(dataset))
        return {name: tuple(w.finish() for w in group) for name, group in writers.items()}


def statistics_of(
    source: TapSource,
    dataset: MapDataset,
    scales: Scales,
    dtype: CacheDtype,
    progress: Progress,
) -> dict[str, tuple[tuple[Tensor, Tensor], ...]]:
    """Mean and standard deviation (C,), float64, of each cut's taps as a cache would hold them.

    Nothing is written; the numbers are those of the cache, bit for bit.

    Raises:
        DataError: A tap holds a value that is not finite or that fp16 cannot hold.
    """
    found: dict[str, tuple[Moments, ...]] = {}
    for pieces, done in source.pieces(dataset, formats(source, scales, dtype)):
        for name, group in pieces.items():
            here = tuple(piece.moments for piece in group)
            before = found.get(name)
            found[name] = tuple(map(Moments.plus, before, here)) if before else here
        progress("statistics of the taps", done, len(dataset))
    return {name: tuple((m.mean, m.std) for m in group) for name, group in found.items()}


def _scale_sample(count: int) -> NDArray[np.int64]:
    if count <= SCALE_SAMPLES:
        return np.arange(count)
    rng = np.random.default_rng(SCALE_SEED)
    return np.sort(rng.choice(count, SCALE_SAMPLES, replace=False))
