"""A finished cache: a folder with one raw file per tap, and an index that describes them.

    0-1.bin        tap 1 of cut 0: all samples one after the other, so that one memory map reads it
    shards.jsonl   the digest of every shard's bytes (`draft.py` writes and reads it)
    index.json     what the files hold, under its own digest; written last
    verified.json  size, times and inode of each file when its bytes were last checked

A cache is opened without reading its bytes if every file has the size, times and inode that
`verified.json` states. Otherwise, for example after a copy, its bytes are hashed once. A change
that leaves size, times and inode the same (a failing disk) is found by `FeatureCache.verify`.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from offramp.features.taps import CacheDtype, TapFormat, bytes_per_sample
from offramp.spec import Spec
from offramp.storage.atomic import write_bytes

INDEX, SHARDS, VERIFIED = "index.json", "shards.jsonl", "verified.json"
UNREADABLE = (OSError, ValueError, LookupError, AttributeError, TypeError, ValidationError)
"""Errors of reading damaged JSON that offramp wrote."""

Stats = dict[str, list[int]]


class TapMeta(Spec):
    """Description of a tap's file.

    Attributes:
        file: Name in the cache's folder.
        shape: Shape of one sample.
        scale: Scale per channel; a value is the stored number times the scale.
        mean: Mean per channel over all samples, as read back.
        std: Standard deviation per channel, dividing by the number of values.
    """

    file: str
    num_samples: int
    shape: tuple[int, ...]
    dtype: CacheDtype
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.num_samples * bytes_per_sample(self.shape, self.dtype)


class Index(Spec):
    """Description of a finished cache.

    Attributes:
        key: SHA-256 over `parts`.
        parts: Everything that decides the cache's content, in clear.
        taps: For each cut, its taps.
        way: How the stages that computed the taps were accelerated, which decides their last bits.
    """

    key: str
    parts: dict[str, Any]
    num_samples: int
    taps: dict[str, tuple[TapMeta, ...]]
    way: str

    @property
    def num_bytes(self) -> int:
        """Of all taps."""
        return sum(tap.num_bytes for taps in self.taps.values() for tap in taps)


@dataclass(frozen=True)
class StoredTap:
    """One tap of N samples, read from its memory map."""

    folder: Path
    meta: TapMeta

    @cached_property
    def _stored(self) -> NDArray[np.floating]:
        shape = (self.meta.num_samples, *self.meta.shape)
        return np.asarray(
            np.memmap(self.folder / self.meta.file, self.meta.dtype, "r", shape=shape)
        )

    @cached_property
    def _format(self) -> TapFormat:
        scale = torch.tensor(self.meta.scale, dtype=torch.float32)
        return TapFormat(self.meta.file, self.meta.shape, scale, self.meta.dtype)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Taps of these samples: (B, ...) float32, laid out as `TapFormat.decode` says."""
        return self._format.decode(torch.from_numpy(self._stored[indices]))


def write_index(folder: Path, index: Index) -> None:
    """Write the index with its own digest, whole or not at all."""
    write_bytes(folder / INDEX, sealed(index.model_dump(mode="json")))


def read_index(folder: Path, key: str | None = None) -> Index | None:
    """The index; None if it is missing, damaged, or has another key than the one given."""
    try:
        index = Index.model_validate(unsealed((folder / INDEX).read_bytes()))
    except UNREADABLE:
        return None
    return index if key in (None, index.key) else None


def stats(folder: Path, files: Iterable[str]) -> Stats:
    """Size, times and inode of each existing file, which writing changes."""
    found = {name: (folder / name).stat() for name in files if (folder / name).is_file()}
    return {
        name: [each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino]
        for name, each in found.items()
    }


def remember(folder: Path, known: Stats) -> None:
    """Note that the files are intact as long as their size, times and inode are these."""
    write_bytes(folder / VERIFIED, json.dumps(known, indent=1).encode())


def is_unchanged(folder: Path, index: Index) -> bool:
    """Whether size, times and inode of all files are those of the last check."""
    taps = [tap for taps in index.taps.values() for tap in taps]
    now = stats(folder, [SHARDS, *(tap.file for tap in taps)])
    try:
        known = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except UNREADABLE:
        return False
    sizes_fit = all(tap.file in now and now[tap.file][0] == tap.num_bytes for tap in taps)
    return sizes_fit and bool(now == known)


def sealed(content: dict[str, Any]) -> bytes:
    """One line of JSON with its own digest."""
    return json.dumps({"digest": _digest(content), **content}).encode() + b"\n"


def unsealed(line: bytes) -> dict[str, Any]:
    """Content of a sealed line.

    Raises:
        ValueError: The line is incomplete or was changed.
    """
    content: dict[str, Any] = json.loads(line)
    content.pop("digest")
    if sealed(content) != line:
        raise ValueError("its digest does not match")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
