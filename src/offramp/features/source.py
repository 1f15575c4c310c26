"""Where taps come from: the first stages of a backbone, run on one device."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from offramp.backbones.folding import quickened_with_way
from offramp.backbones.stage import Stage
from offramp.backbones.staged import StagedBackbone
from offramp.data import Batch, Samples
from offramp.errors import ShapeError
from offramp.features.executor import Executor, WorkUnit
from offramp.spec import dims

READERS = 4
"""Threads that read the data ahead of an accelerator."""

Taps = dict[str, tuple[Tensor, ...]]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class BatchWork(Generic[Result]):
    """What a machine holds for units of a batch: the samples, and what is done with them."""

    dataset: Samples
    work: Callable[[Batch], Result]


@dataclass(frozen=True, eq=False)
class WorkOnBatch:
    """A unit of work on samples that were read already: it brings them along."""

    batch: Batch

    def run(self, resources: BatchWork[Result], /) -> Result:
        """Do the work; a failure names the samples."""
        with _named(self.batch.rows):
            return resources.work(self.batch)


@dataclass(frozen=True, eq=False)
class WorkOnRows:
    """A unit of work on samples by their places in a data set, a batch of them."""

    rows: NDArray[np.int64]

    def read(self, dataset: Samples) -> WorkOnBatch:
        """The same work with its samples read; a failure names them."""
        with _named(self.rows):
            return WorkOnBatch(dataset.read(self.rows))

    def run(self, resources: BatchWork[Result], /) -> Result:
        """Read the samples and do the work; a failure names them."""
        return self.read(resources.dataset).run(resources)


@dataclass(frozen=True, eq=False)
class TapSource:
    """The first stages of a backbone, ready on a device to give the taps of some cuts.

    Attributes:
        stages: Up to the last cut that is wanted, no further.
        names: Of the cuts that end them.
        shapes: Of each wanted cut's taps, without the batch axis.
        way: How the stages were made quicker.
    """

    stages: tuple[nn.Module, ...]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    input_shapes: tuple[tuple[int, ...], ...]
    device: torch.device
    executor: Executor
    way: str

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
        quick, way = quickened_with_way(stages, backbone.input_shapes, device)
        shapes = {
            name: tuple(map(dims, backbone.tap_shapes[name]))
            for name in backbone.cuts
            if name in cuts
        }
        names = tuple(backbone.cuts[: last + 1])
        return cls(tuple(quick), names, shapes, backbone.input_shapes, device, executor, way)

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

        Each batch is a unit that the executor runs, so workers are busy from the first to the last.
        On the CPU the workers also read our own data sets, elsewhere threads of their own do. A
        user's data set may belong to one thread, so the caller's reads it, ahead of the work.
        """
        size = self.batch_size
        chunks = (order[start : start + size] for start in range(0, len(order), size))
        units = map(WorkOnRows, chunks)
        todo: Iterable[WorkUnit[BatchWork[Result], Result]] = units
        if not dataset.threadsafe:
            todo = (unit.read(dataset) for unit in units)
        elif self.device.type != "cpu":
            todo = _read_ahead(units, dataset)
        done = 0
        for result in self.executor.run(todo, BatchWork(dataset, work)):
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


def _read_ahead(units: Iterable[WorkOnRows], dataset: Samples) -> Iterator[WorkOnBatch]:
    with ThreadPoolExecutor(READERS) as pool:
        try:
            yield from Executor(pool, READERS).stream(lambda unit: unit.read(dataset), units)
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
