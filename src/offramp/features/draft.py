"""An unfinished cache: written shard by shard, and resumed after the last complete shard.

A shard is a range of samples, and so a range of bytes in each tap's file. `shards.jsonl` holds the
key and the scales, then a line per shard. Two rules hold at any moment, whatever was killed:

- a shard's line is written after all of its bytes;
- a shard counts as complete only if its line and all lines before it match their own digests, and
  its bytes in every file match the digests in its line.

Everything after the last complete shard is written again. Files are never shortened below their
full size, since another process may have mapped them.
"""

import hashlib
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

import torch
from torch import Tensor

from offramp.features.executor import Executor
from offramp.features.extract import Scales, Shard, ShardRange
from offramp.features.moments import Moments
from offramp.features.store import (
    INDEX,
    SHARDS,
    UNREADABLE,
    VERIFIED,
    Index,
    Stats,
    TapMeta,
    remember,
    sealed,
    stats,
    unsealed,
    write_index,
)
from offramp.features.taps import CacheDtype, bytes_per_sample
from offramp.progress import Progress
from offramp.spec import Spec
from offramp.storage.atomic import write_bytes

SHARD_BYTES = 64 << 20
SHARD_SAMPLES = 1024
_CHUNK_BYTES = 1 << 20


class ShardRecord(Spec):
    """Record of a complete shard.

    Attributes:
        sha256: SHA-256 of its bytes in each tap's file.
        moments: Moments of each tap over this and all earlier shards: count, mean, squares.
    """

    sha256: tuple[str, ...]
    moments: tuple[tuple[int, tuple[float, ...], tuple[float, ...]], ...]

    @classmethod
    def of(cls, shard: Shard, before: "ShardRecord | None") -> Self:
        """Make the record of a shard that follows another one.

        Moments are merged batch by batch in the order of the samples, also across shards, so that
        they do not depend on where shards end or a run was stopped.
        """
        moments = shard.moments(before.known() if before else None)
        return cls(
            sha256=shard.sha256,
            moments=tuple(
                (m.count, tuple(m.mean.tolist()), tuple(m.squares.tolist())) for m in moments
            ),
        )

    def known(self) -> tuple[Moments, ...]:
        """The moments as objects."""
        return tuple(
            Moments(count, *(torch.tensor(v, dtype=torch.float64) for v in (mean, squares)))
            for count, mean, squares in self.moments
        )


@dataclass(frozen=True)
class Layout:
    """Places of the shards in the files, which follow from the cache's key.

    Attributes:
        folder: Folder of the cache.
        shapes: Shape of one sample of each tap, by cut.
        names: File of each tap, by cut; taps that are the same tensor have one file.
        dtype: Type of the stored numbers.
        num_samples: Number of samples.
        batch_size: Samples per batch; shards consist of complete batches.
    """

    folder: Path
    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    names: Mapping[str, tuple[str, ...]]
    dtype: CacheDtype
    num_samples: int
    batch_size: int

    @cached_property
    def files(self) -> dict[str, int]:
        """Bytes of one sample in each file, by name, in the order of the taps."""
        return {
            name: bytes_per_sample(shape, self.dtype)
            for cut, shapes in self.shapes.items()
            for name, shape in zip(self.names[cut], shapes, strict=True)
        }

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Of all taps in order, the numbers of those that are written: the first of each file."""
        every = [name for names in self.names.values() for name in names]
        return tuple(every.index(name) for name in self.files)

    @property
    def num_bytes(self) -> int:
        """Size of all taps."""
        return self.num_samples * sum(self.files.values())

    @cached_property
    def shards(self) -> tuple[ShardRange, ...]:
        """Ranges of at most SHARD_BYTES and SHARD_SAMPLES each, but at least one batch."""
        most = min(SHARD_SAMPLES, SHARD_BYTES // sum(self.files.values()))
        size = max(1, most // self.batch_size) * self.batch_size
        return tuple(
            ShardRange(first, min(first + size, self.num_samples))
            for first in range(0, self.num_samples, size)
        )

    def whole_shards(
        self, records: Iterable[ShardRecord], executor: Executor, progress: Progress
    ) -> tuple[int, ShardRecord | None]:
        """Number of shards, from the first, that match their records, and the last such record."""
        waiting: deque[ShardRecord] = deque()

        def ranges() -> Iterator[HashRange]:
            for shard, record in zip(self.shards, records, strict=False):
                waiting.append(record)
                for name, each in self.files.items():
                    path, count = str(self.folder / name), shard.stop - shard.first
                    yield HashRange(path, shard.first * each, count * each)

        digests, count, last = executor.run(ranges(), None), 0, None
        while found := tuple(islice(digests, len(self.files))):
            record = waiting.popleft()
            if found != record.sha256:
                break
            count, last = count + 1, record
            progress("check of the taps", self.shards[count - 1].stop, self.num_samples)
        return count, last


@dataclass(frozen=True)
class HashRange:
    """A unit of work: SHA-256, in hex, of the existing part of a range of a file."""

    path: str
    start: int
    num_bytes: int

    def run(self, resources: None, /) -> str:
        """Read and hash."""
        digest, left = hashlib.sha256(), self.num_bytes
        try:
            with Path(self.path).open("rb") as file:
                file.seek(self.start)
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    digest.update(chunk)
                    left -= len(chunk)
        except FileNotFoundError:
            pass
        return digest.hexdigest()


@dataclass(eq=False)
class Draft:
    """An unfinished cache.

    Attributes:
        layout: Places of the shards.
        key: Key of the cache.
        scales: Scales of each cut's taps, per channel.
        way: How the stages that compute the taps were accelerated.
        done: Number of complete shards, from the first on.
        last: Record of the last of these.
        seen: Size and times of the files before they were read; None after writing.
    """

    layout: Layout
    key: str
    scales: Scales
    way: str
    done: int = 0
    last: ShardRecord | None = None
    seen: Stats | None = field(default=None)

    @classmethod
    def begin(cls, layout: Layout, key: str, scales: Scales, way: str) -> Self:
        """Start an empty draft and delete what the folder holds."""
        shutil.rmtree(layout.folder, ignore_errors=True)
        listed = {name: [scale.tolist() for scale in taps] for name, taps in scales.items()}
        write_bytes(layout.folder / SHARDS, sealed({"key": key, "scales": listed, "way": way}))
        return cls(layout, key, scales, way)

    @classmethod
    def found(cls, layout: Layout, key: str, executor: Executor, progress: Progress) -> Self | None:
        """The complete part of this draft in the folder, or None if the folder has another key."""
        seen = stats(layout.folder, [SHARDS, *layout.files])
        try:
            with (layout.folder / SHARDS).open("rb") as lines:
                head = unsealed(lines.readline())
                if head["key"] != key:
                    return None
                done, last = layout.whole_shards(_records(lines), executor, progress)
        except UNREADABLE:
            return None
        scales = {name: tuple(map(torch.tensor, taps)) for name, taps in head["scales"].items()}
        return cls(layout, key, scales, head["way"], done, last, seen)

    @property
    def missing(self) -> tuple[ShardRange, ...]:
        """Shards that are still to be extracted, in order."""
        return self.layout.shards[self.done :]

    @property
    def samples(self) -> int:
        """Number of samples with complete taps, from the first on."""
        return self.missing[0].first if self.missing else self.layout.num_samples

    def write(self, shards: Iterable[Shard]) -> None:
        """Write missing shards, given in order; complete ones are kept if a later one fails.

        Raises:
            OSError: The disk is full, or writing fails.
        """
        folder, first, self.seen = self.layout.folder, self.samples, None
        for name in (INDEX, VERIFIED):
            (folder / name).unlink(missing_ok=True)
        with ExitStack() as stack:
            lines = stack.enter_context((folder / SHARDS).open("rb+"))
            for _ in range(1 + self.done):
                lines.readline()
            lines.truncate(lines.tell())
            files = [stack.enter_context(_opened(folder / name)) for name in self.layout.files]
            for file, each in zip(files, self.layout.files.values(), strict=True):
                file.seek(first * each)
            for shard in shards:
                self._append(shard.of_taps(self.layout.kept), files, lines)

    def _append(self, shard: Shard, files: Sequence[IO[bytes]], lines: IO[bytes]) -> None:
        for file, pieces in zip(files, shard.taps, strict=True):
            for piece in pieces:
                file.write(piece.stored.numpy().data)
            file.flush()
        record = ShardRecord.of(shard, self.last)
        lines.write(sealed(record.model_dump(mode="json")))
        lines.flush()
        self.done, self.last = self.done + 1, record

    def finish(self, parts: dict[str, Any]) -> Index:
        """Flush everything to disk, then write the index and return it."""
        folder, files = self.layout.folder, self.layout.files
        if self.seen is None:
            _settle(folder / SHARDS, None)
            for name, each in files.items():
                _settle(folder / name, self.layout.num_samples * each)
        index = Index(
            key=self.key,
            parts=parts,
            num_samples=self.layout.num_samples,
            taps=self._taps(),
            way=self.way,
        )
        write_index(folder, index)
        remember(folder, self.seen or stats(folder, [SHARDS, *files]))
        return index

    def _taps(self) -> dict[str, tuple[TapMeta, ...]]:
        known = self.last.known() if self.last else ()
        moments = dict(zip(self.layout.files, known, strict=True))
        return {
            cut: tuple(
                self._tap(name, moments[name], shape, scale)
                for name, shape, scale in zip(
                    self.layout.names[cut], shapes, self.scales[cut], strict=True
                )
            )
            for cut, shapes in self.layout.shapes.items()
        }

    def _tap(self, file: str, moments: Moments, shape: tuple[int, ...], scale: Tensor) -> TapMeta:
        return TapMeta(
            file=file,
            num_samples=self.layout.num_samples,
            shape=shape,
            dtype=self.layout.dtype,
            scale=tuple(scale.tolist()),
            mean=tuple(moments.mean.tolist()),
            std=tuple(moments.std.tolist()),
        )


def _records(lines: IO[bytes]) -> Iterator[ShardRecord]:
    """Records up to the first incomplete line."""
    for line in lines:
        try:
            record = ShardRecord.model_validate(unsealed(line))
        except UNREADABLE:
            return
        yield record


def _opened(path: Path) -> IO[bytes]:
    """Open for writing at any place, keeping the content."""
    return path.open("rb+" if path.exists() else "wb")


def _settle(path: Path, size: int | None) -> None:
    """Shorten a file to `size` and flush it to disk."""
    with path.open("rb+") as file:
        if size is not None:
            file.truncate(size)
        os.fsync(file.fileno())
