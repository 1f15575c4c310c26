"""FeatureCache: the taps of a data set under one backbone, computed once and kept on disk.

A cache is a folder `<root>/<first 16 digits of its key>/`: `store.py` describes its content and
`draft.py` how it is written. Taps that another cache under the same root already holds, together
with those of other cuts, are read there and not computed again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.arguments import as_path
from offramp.backbones.staged import StagedBackbone, check_staged
from offramp.data import Samples, as_samples
from offramp.errors import BundleError
from offramp.features.draft import Layout
from offramp.features.executor import start_executor
from offramp.features.extract import Scales
from offramp.features.found import Found, holding
from offramp.features.keys import digest_of, key_parts, origin_of, shared_parts
from offramp.features.making import Making
from offramp.features.source import batch_size_on
from offramp.features.store import VERIFIED, StoredTap, is_unchanged, read_index
from offramp.features.taps import CacheDtype, bytes_per_sample
from offramp.progress import Progress, silent
from offramp.spec import dims
from offramp.storage.atomic import make_folder
from offramp.storage.lock import locked


@dataclass(frozen=True)
class FeatureCache:
    """Taps of N samples at some cuts, read from memory maps.

    Attributes:
        parts: Everything that decides the taps, in clear.
        found: For each cut, the cache on disk that has its taps.
        taps: For each cut, its taps.
    """

    parts: Mapping[str, Any]
    found: Mapping[str, Found]
    taps: Mapping[str, tuple[StoredTap, ...]]

    @classmethod
    def of(
        cls,
        backbone: StagedBackbone,
        data: Any,
        root: str | Path,
        *,
        cuts: Sequence[str] | None = None,
        scales_of: "FeatureCache | None" = None,
        dtype: CacheDtype = "float16",
        device: str = "cpu",
        threads: int | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Open the cache of these taps, after computing what is missing or damaged.

        After a stop at any moment the same call resumes after the last complete shard. Any number
        of processes may use the same root; those that need taps of the same samples and backbone
        wait for each other.

        Args:
            backbone: Run without gradients, in evaluation mode, no further than the last of `cuts`.
            data: A map-style data set, or a pair of arrays.
            root: Folder of caches, created if needed.
            cuts: Names of cuts; None means all of the backbone's.
            scales_of: Cache of the training data, whose scales are used; None if this is the
                training data, whose scales are estimated from a sample.
            dtype: float16 with a scale per channel, or float32.
            device: Device of the backbone.
            threads: Number of batches that the CPU computes at the same time, each on one core.
                None uses as many as torch has threads. Results do not depend on it.
            progress: Called after each batch.

        Raises:
            DataError: Too little space, a failed write, or a value that cannot be stored.
            BundleError: The folder cannot be created.
            ShapeError: The data is not of the shape that the backbone was cut for.
        """
        check_staged(backbone)
        samples = as_samples(data)
        wanted = tuple(name for name in backbone.cuts if cuts is None or name in cuts)
        scaled = None if scales_of is None else scales_of.parts["scales"]
        parts = key_parts(backbone, samples, wanted, scaled, dtype, torch.device(device))
        scales = None if scales_of is None else scales_of.scales()
        folder = make_folder(as_path(root, "root"))
        make = _Caches(folder, backbone, samples, scales, threads, progress)
        with locked(make.root, what=digest_of(shared_parts(parts))[:16]):
            found = make.whole(parts)
        taps = {
            name: tuple(StoredTap(each.folder, tap) for tap in each.index.taps[name])
            for name, each in found.items()
        }
        return cls(parts, found, taps)

    def batch(self, cut: str, indices: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Taps of these samples at a cut, each (B, ...) float32 on the CPU."""
        return tuple(tap.read(indices) for tap in self.taps[cut])

    def statistics(self, cut: str) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation (C,) over all samples, float64, of each tap at a cut."""
        return tuple((_float64(tap.meta.mean), _float64(tap.meta.std)) for tap in self.taps[cut])

    @property
    def folder(self) -> Path:
        """Folder of the first cut's files; those of other cuts may be in other folders."""
        return next(iter(self.found.values())).folder

    def origin(self, cut: str) -> dict[str, Any]:
        """Everything that decides the taps at one cut."""
        return origin_of(self.parts, cut, self.found[cut].index.way)

    def scales(self) -> Scales:
        """Per-channel scales (C,) of each cut's taps."""
        return {
            name: tuple(torch.tensor(tap.meta.scale) for tap in taps)
            for name, taps in self.taps.items()
        }

    def verify(self, *, threads: int | None = None, progress: Progress = silent) -> None:
        """Read and hash every byte, even if the files look unchanged.

        Raises:
            BundleError: Bytes are missing or damaged; the next `of` computes them again.
        """
        with start_executor(threads, torch.device("cpu")) as executor:
            for each in {found.folder: found for found in self.found.values()}.values():
                samples = each.whole_samples(executor, progress)
                if samples < each.index.num_samples:
                    (each.folder / VERIFIED).unlink(missing_ok=True)
                    raise BundleError(
                        f"the cache {each.folder} is damaged from sample {samples} on: its SHA-256 "
                        "differs. Open it with FeatureCache.of, which recomputes the damaged "
                        "part."
                    )


@dataclass(frozen=True, eq=False)
class _Caches:
    """The caches under one root, and how missing taps are computed. The caller holds its lock."""

    root: Path
    backbone: StagedBackbone
    samples: Samples
    scales: Scales | None
    threads: int | None
    progress: Progress

    def whole(self, parts: dict[str, Any]) -> dict[str, Found]:
        """For each cut of a key, a cache with intact files."""
        own = self._layout(parts)
        index = read_index(own.folder, digest_of(parts))
        if index is not None and is_unchanged(own.folder, index):
            return dict.fromkeys(parts["cuts"], Found(own.folder, index))
        with start_executor(self.threads, torch.device(parts["device"])) as executor:
            found = {}
            if not own.folder.exists():  # what was begun under this very key is resumed
                known = holding(self.root, parts)
                whole = {
                    each.folder: each.is_whole(executor, self.progress)
                    for each in {found.folder: found for found in known.values()}.values()
                }
                found = {cut: each for cut, each in known.items() if whole[each.folder]}
            if missing := {cut: at for cut, at in parts["cuts"].items() if cut not in found}:
                rest = {**parts, "cuts": missing}
                device = torch.device(parts["device"])
                layout = self._layout(rest)
                making = Making(
                    self.backbone,
                    self.samples,
                    layout,
                    self.scales,
                    executor,
                    device,
                    self.progress,
                )
                index = making.whole(digest_of(rest), rest)
                found |= dict.fromkeys(missing, Found(layout.folder, index))
        return {cut: found[cut] for cut in parts["cuts"]}

    def _layout(self, parts: Mapping[str, Any]) -> Layout:
        return Layout(
            self.root / digest_of(parts)[:16],
            {name: tuple(map(dims, self.backbone.tap_shapes[name])) for name in parts["cuts"]},
            file_names({name: self.backbone.tap_nodes[name] for name in parts["cuts"]}),
            parts["dtype"],
            len(self.samples),
            batch_size_on(torch.device(parts["device"])),
        )


def missing_bytes(
    backbone: StagedBackbone,
    train: Samples,
    validation: Samples,
    root: Path,
    *,
    cuts: tuple[str, ...],
    dtype: CacheDtype,
    device: torch.device,
) -> int:
    """Bytes that caches of both sets would still write under a root; reads only indices."""
    first = key_parts(backbone, train, cuts, None, dtype, device)
    second = key_parts(backbone, validation, cuts, first["scales"], dtype, device)
    return sum(
        len(samples) * sample_bytes(backbone, set(cuts) - holding(root, parts).keys(), dtype)
        for samples, parts in ((train, first), (validation, second))
    )


def sample_bytes(backbone: StagedBackbone, cuts: Collection[str], dtype: CacheDtype) -> int:
    """Bytes that the taps of one sample at these cuts take, the same tensor counted once."""
    sizes = {
        node: bytes_per_sample(dims(shape), dtype)
        for name in cuts
        for node, shape in zip(backbone.tap_nodes[name], backbone.tap_shapes[name], strict=True)
    }
    return sum(sizes.values())


def file_names(nodes: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """A file for each tap, by cut, from the nodes that give them: one for each node.

    It is named by the first cut and tap that have the node.
    """
    known: dict[str, str] = {}
    return {
        cut: tuple(known.setdefault(node, f"{number}-{tap}.bin") for tap, node in enumerate(of_cut))
        for number, (cut, of_cut) in enumerate(nodes.items())
    }


def _float64(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
