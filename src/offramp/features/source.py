"""Source of taps: the first stages of a backbone, run on one device."""

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
from offramp.backbones.inputs import Inputs
from offramp.backbones.stage import Stage
from offramp.backbones.staged import StagedBackbone
from offramp.data import Batch, Samples
from offramp.errors import ShapeError
from offramp.features.absent import Absent, filled, lacking, marked
from offramp.features.executor import Executor, WorkUnit
from offramp.spec import dims

READERS = 4
"""Number of threads that read data ahead of an accelerator."""

Taps = dict[str, tuple[Tensor, ...]]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class BatchWork(Generic[Result]):
    """Resources for units that work on a batch: the samples, and the work on them."""

    dataset: Samples
    work: Callable[[Batch], Result]


@dataclass(frozen=True, eq=False)
class WorkOnBatch:
    """A unit of work on samples that were read already and are part of it."""

    batch: Batch

    def run(self, resources: BatchWork[Result], /) -> Result:
        """Do the work; a failure names the samples."""
        with _named(self.batch.rows):
            return resources.work(self.batch)


@dataclass(frozen=True, eq=False)
class WorkOnRows:
    """A unit of work on a batch of samples, given by their places in a data set."""

    rows: NDArray[np.int64]

    def read(self, dataset: Samples) -> WorkOnBatch:
        """Read the samples and return the work on them; a failure names them."""
        with _named(self.rows):
            return WorkOnBatch(dataset.read(self.rows))

    def run(self, resources: BatchWork[Result], /) -> Result:
        """Read the samples and do the work; a failure names them."""
        return self.read(resources.dataset).run(resources)


@dataclass(frozen=True, eq=False)
class TapSource:
    """The first stages of a backbone on a device, which compute the taps of some cuts.

    Attributes:
        stages: Stages up to the last needed cut.
        names: Names of the cuts at their ends.
        shapes: Shapes of each needed cut's taps, without the batch axis.
        inputs: What the taps are computed from.
        way: How the stages were accelerated.
    """

    stages: tuple[nn.Module, ...]
    names: tuple[str, ...]
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    inputs: Inputs
    input_shapes: tuple[tuple[int, ...], ...]
    input_dtypes: tuple[torch.dtype, ...]
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
        """Make faster copies of the stages up to the last of `cuts`; the backbone is not changed.

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
        return cls(
            tuple(quick),
            names,
            shapes,
            backbone.inputs,
            backbone.input_shapes,
            backbone.input_dtypes,
            device,
            executor,
            way,
        )

    @property
    def batch_size(self) -> int:
        """Samples per pass."""
        return batch_size_on(self.device)

    @torch.inference_mode()
    def taps(self, inputs: tuple[Tensor, ...]) -> Taps:
        """Taps of every needed cut for a batch of inputs.

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

    def taps_of(self, batch: Batch) -> tuple[Taps, Absent]:
        """Taps of every needed cut, NaN where a sample lacks an input, and the rows where it does.

        Raises:
            ShapeError: The inputs are not of the shape that the backbone was cut for.
        """
        found = self.taps(filled(batch, self.input_shapes, self.input_dtypes))
        absent = {
            name: tuple(lacking(batch.present, needed) for needed in self.inputs.of_taps[name])
            for name in self.shapes
        }
        if batch.present is not None:
            found = {name: tuple(map(marked, found[name], absent[name])) for name in found}
        return found, absent

    def stream(
        self, work: Callable[[Batch], Result], dataset: Samples, order: NDArray[np.int64]
    ) -> Generator[tuple[Result, int]]:
        """Results of the work on the samples at `order`, by batch, with the number of samples done.

        Each batch is a unit for the executor. On the CPU the workers also read offramp's own data
        sets; for an accelerator separate threads read them. A user's data set may be usable from
        one thread only, so the caller's thread reads it.
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
    """Add the places of the samples to an error in the block."""
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
    """Samples per pass: few on a CPU, whose caches hold the early maps of only a few samples."""
    return 16 if device.type == "cpu" else 128


def check_shapes(given: tuple[tuple[int, ...], ...], expected: tuple[tuple[int, ...], ...]) -> None:
    """Refuse inputs of another shape than the backbone was cut for, both without the batch axis.

    Raises:
        ShapeError: With both shapes.
    """
    if given != expected:
        raise ShapeError(
            f"the data gives inputs of shape {given}, but the backbone was cut with a sample of "
            f"shape {expected} (without the batch axis). Prepare the data in the backbone's "
            "shape, or cut the backbone with a sample of the data's shape."
        )
