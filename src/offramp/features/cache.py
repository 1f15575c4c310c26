"""FeatureCache: the taps of a data set under one backbone, computed once and kept on disk.

A cache is a folder `<root>/<first 16 digits of its key>/` with one raw file per cut and tap and a
`meta.json`, written last. It is made under a temporary name and renamed when whole, so a folder
under its own name is complete; sizes and SHA-256 are checked all the same whenever it is opened.
"""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from offramp.backbones.staged import StagedBackbone
from offramp.data import Samples, as_samples
from offramp.errors import BundleError, DataError
from offramp.features.executor import start_executor
from offramp.features.extraction import (
    SCALE_SAMPLES,
    SCALE_SEED,
    Scales,
    TapSource,
    batch_size_on,
    find_scales,
    write_taps,
)
from offramp.features.meta import CacheMeta, read_meta, write_meta
from offramp.features.tap import (
    CacheDtype,
    StoredTap,
    TapMeta,
    bytes_per_sample,
)
from offramp.progress import Progress, silent
from offramp.storage.atomic import make_folder
from offramp.storage.lock import locked

_FORMAT = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """Taps of N samples at some cuts, read from memory maps.

    Attributes:
        folder: Where the files are.
        meta: What they hold.
        taps: For each cut, its taps.
    """

    folder: Path
    meta: CacheMeta
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
        """Open the cache of these taps, or make it where there is none that is whole.

        Args:
            backbone: Run without gradients, in evaluation mode, no further than the last of `cuts`.
            data: A map-style data set, or a pair of arrays.
            root: Folder of caches, made where needed.
            cuts: All of the backbone's where None.
            scales_of: The training data's cache, whose scales this one takes; None where this is
                the training data and a sample of it gives them.
            dtype: float16 with a scale per channel, or float32 as it is.
            device: Where the backbone runs.
            threads: Batches that the CPU computes at once, each on one core; as many as torch has
                threads where None. No bit of a result depends on it.
            progress: Told after each batch.

        Raises:
            DataError: Too little space, a failed write, or a value that cannot be stored.
            BundleError: The folder cannot be created.
            ShapeError: The data is not of the shape that the backbone was cut for.
        """
        dataset = as_samples(data)
        wanted = tuple(name for name in backbone.cuts if cuts is None or name in cuts)
        parts = key_parts(backbone, dataset, wanted, scales_of, dtype, device)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        root = make_folder(Path(root))
        with locked(root):
            folder = root / key[:16]
            found = cls._whole(folder, key)
            if found is None:
                place = torch.device(device)
                with _made_whole(folder) as temporary, start_executor(threads, place) as workers:
                    source = TapSource.of(backbone, wanted, place, workers)
                    taps = _fill(temporary, source, dataset, scales_of, dtype, progress)
                    meta = CacheMeta(key=key, parts=parts, num_samples=len(dataset), taps=taps)
                    write_meta(temporary, meta)
                found = cls._open(folder, key)
        return found

    def batch(self, cut: str, indices: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Taps of these samples at a cut, each (B, ...) float32 on the CPU."""
        return tuple(tap.read(indices) for tap in self.taps[cut])

    def statistics(self, cut: str) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation (C,) over all samples, float64, of each tap at a cut."""
        return tuple((_float64(tap.meta.mean), _float64(tap.meta.std)) for tap in self.taps[cut])

    @property
    def origin(self) -> dict[str, Any]:
        """Everything that decides the taps at any one cut: the key's parts but for the cuts."""
        return {name: part for name, part in self.meta.parts.items() if name != "cuts"}

    def scales(self) -> Scales:
        """Per-channel scales (C,) of each cut's taps."""
        return {
            name: tuple(torch.tensor(tap.meta.scale) for tap in taps)
            for name, taps in self.taps.items()
        }

    @classmethod
    def _whole(cls, folder: Path, key: str) -> Self | None:
        if not folder.exists():
            return None
        try:
            return cls._open(folder, key)
        except BundleError as error:
            _log.warning("%s It is computed again.", error)
            return None

    @classmethod
    def _open(cls, folder: Path, key: str) -> Self:
        meta = read_meta(folder, key)
        stored = {
            name: tuple(StoredTap(folder, tap) for tap in taps) for name, taps in meta.taps.items()
        }
        return cls(folder, meta, stored)


def key_parts(
    backbone: StagedBackbone,
    dataset: Samples,
    cuts: tuple[str, ...],
    scales_of: FeatureCache | None,
    dtype: CacheDtype,
    device: str,
) -> dict[str, Any]:
    """Everything that decides a bit of the taps of a data set, in the form of JSON values."""
    data = dataset.content_key
    sample = {"data": data, "samples": SCALE_SAMPLES, "seed": SCALE_SEED, "dtype": dtype}
    return {
        "format": _FORMAT,
        "backbone": backbone.weights_digest(),
        "stages": "folded, channels last" if device == "cpu" else "folded",
        "cuts": [repr(place) for place in backbone.places if place.name in cuts],
        "data": data,
        "dtype": dtype,
        "scales": sample if scales_of is None else scales_of.meta.parts["scales"],
        "batch_size": batch_size_on(torch.device(device)),
        "device": device,
        "torch": str(torch.__version__),
    }


def _fill(
    folder: Path,
    source: TapSource,
    dataset: Samples,
    scales_of: FeatureCache | None,
    dtype: CacheDtype,
    progress: Progress,
) -> dict[str, tuple[TapMeta, ...]]:
    """Write the taps into an empty folder, space permitting."""
    needed = len(dataset) * sum(
        bytes_per_sample(shape, dtype) for shapes in source.shapes.values() for shape in shapes
    )
    _check_space(folder, needed)
    scales = scales_of.scales() if scales_of else find_scales(source, dataset, dtype, progress)
    with _full_disk_explained(folder.parent, needed):
        return write_taps(source, dataset, folder, scales, dtype, progress)


@contextmanager
def _full_disk_explained(root: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        raise DataError(
            f"writing the feature cache in {root} failed: {error.strerror}. It needs "
            f"{_readable(needed)}: free that much there, lift the limit on file sizes, choose "
            "another output folder, or train on fewer samples or cuts. What was written of it is "
            "removed, earlier caches are untouched."
        ) from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"the feature cache needs {_readable(needed)} in {folder.parent}, where "
            f"{_readable(free)} are free. Free some space, choose another output folder, or "
            "train on fewer samples or cuts."
        )


def _readable(num_bytes: int) -> str:
    if num_bytes >= 10**9:
        return f"{num_bytes / 10**9:.1f} GB"
    return f"{num_bytes / 10**6:.3g} MB" if num_bytes >= 10**6 else f"{num_bytes:,} bytes"


def _float64(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder; on success it takes `folder`'s place, else it goes."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir()
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
