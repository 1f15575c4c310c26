"""FeatureCache: the taps of a data set under one backbone, computed once and kept on disk.

A cache is the folder `<root>/<first 16 digits of its key>/`: `store.py` says what is in it, and
`draft.py` how it comes to be there.
"""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
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
from offramp.features.draft import Draft, Layout
from offramp.features.executor import Executor, start_executor
from offramp.features.extract import (
    SCALE_SAMPLES,
    SCALE_SEED,
    Extraction,
    Scales,
    extract_taps,
    find_scales,
    formats,
)
from offramp.features.source import TapSource, batch_size_on
from offramp.features.store import (
    INDEX,
    VERIFIED,
    Index,
    StoredTap,
    is_unchanged,
    read_index,
    stats,
)
from offramp.features.taps import CacheDtype
from offramp.progress import Progress, silent
from offramp.spec import dims
from offramp.storage.atomic import make_folder
from offramp.storage.lock import locked

_FORMAT = 3
_OLD_INDEX = "meta.json"  # of formats 1 and 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """Taps of N samples at some cuts, read from memory maps.

    Attributes:
        folder: Where the files are.
        index: What they hold.
        taps: For each cut, its taps.
    """

    folder: Path
    index: Index
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
        """Open the cache of these taps, after computing what is missing or damaged of it.

        Stopped at any moment, the same call resumes behind the last shard that is whole.

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
            progress: Called after each batch.

        Raises:
            DataError: Too little space, a failed write, or a value that cannot be stored.
            BundleError: The folder cannot be created.
            ShapeError: The data is not of the shape that the backbone was cut for.
        """
        dataset = as_samples(data)
        wanted = tuple(name for name in backbone.cuts if cuts is None or name in cuts)
        place = torch.device(device)
        parts = key_parts(backbone, dataset, wanted, scales_of, dtype, place)
        key = digest_of(parts)
        root = make_folder(Path(root))
        layout = Layout(
            root / key[:16],
            {name: tuple(map(dims, backbone.tap_shapes[name])) for name in wanted},
            dtype,
            len(dataset),
            batch_size_on(place),
        )
        with locked(root):
            index = read_index(layout.folder, key)
            if index is None or not is_unchanged(layout.folder, index):
                with start_executor(threads, place) as executor:
                    make = _Make(backbone, dataset, layout, scales_of, executor, place, progress)
                    index = make.whole(key, parts)
        stored = {
            name: tuple(StoredTap(layout.folder, tap) for tap in taps)
            for name, taps in index.taps.items()
        }
        return cls(layout.folder, index, stored)

    def batch(self, cut: str, indices: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Taps of these samples at a cut, each (B, ...) float32 on the CPU."""
        return tuple(tap.read(indices) for tap in self.taps[cut])

    def statistics(self, cut: str) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation (C,) over all samples, float64, of each tap at a cut."""
        return tuple((_float64(tap.meta.mean), _float64(tap.meta.std)) for tap in self.taps[cut])

    @property
    def origin(self) -> dict[str, Any]:
        """Everything that decides the taps at any one cut: the key's parts but for the cuts."""
        return {name: part for name, part in self.index.parts.items() if name != "cuts"}

    def scales(self) -> Scales:
        """Per-channel scales (C,) of each cut's taps."""
        return {
            name: tuple(torch.tensor(tap.meta.scale) for tap in taps)
            for name, taps in self.taps.items()
        }

    def verify(self, *, threads: int | None = None, progress: Progress = silent) -> None:
        """Read and hash every byte, however the files look.

        Raises:
            BundleError: Bytes are missing or damaged; the next `of` computes them again.
        """
        taps = self.index.taps
        layout = Layout(
            self.folder,
            {name: tuple(tap.shape for tap in each) for name, each in taps.items()},
            self.index.parts["dtype"],
            self.index.num_samples,
            self.index.parts["batch_size"],
        )
        with start_executor(threads, torch.device("cpu")) as executor:
            draft = Draft.found(layout, self.index.key, executor, progress)
        if draft is None or draft.missing:
            (self.folder / VERIFIED).unlink(missing_ok=True)
            raise BundleError(
                f"the cache {self.folder} is damaged from sample {draft.samples if draft else 0} "
                "on: its SHA-256 differs. Open it with FeatureCache.of, which computes what is "
                "damaged again."
            )


def key_parts(
    backbone: StagedBackbone,
    dataset: Samples,
    cuts: tuple[str, ...],
    scales_of: FeatureCache | None,
    dtype: CacheDtype,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides a bit of the taps of a data set, in the form of JSON values."""
    data = dataset.content_key
    sample = {"data": data, "samples": SCALE_SAMPLES, "seed": SCALE_SEED, "dtype": dtype}
    return {
        "format": _FORMAT,
        "backbone": backbone.weights_digest(),
        "stages": "folded, channels last" if device.type == "cpu" else "folded",
        "cuts": [repr(place) for place in backbone.places if place.name in cuts],
        "data": data,
        "dtype": dtype,
        "scales": sample if scales_of is None else scales_of.index.parts["scales"],
        "batch_size": batch_size_on(device),
        "device": str(device),
        "torch": str(torch.__version__),
    }


def digest_of(parts: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, in hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class _Make:
    """Makes a cache whole, from whatever there is of it."""

    backbone: StagedBackbone
    dataset: Samples
    layout: Layout
    scales_of: FeatureCache | None
    executor: Executor
    device: torch.device
    progress: Progress

    def whole(self, key: str, parts: dict[str, Any]) -> Index:
        draft = Draft.found(self.layout, key, self.executor, self.progress)
        self._log(draft)
        if draft is None or draft.missing:
            _check_space(self.layout)
            source = TapSource.of(
                self.backbone, tuple(self.layout.shapes), self.device, self.executor
            )
            draft = draft or Draft.begin(self.layout, key, self._scales(source))
            self._extract(draft, source)
        with _full_disk_explained(draft):
            return draft.finish(parts)

    def _scales(self, source: TapSource) -> Scales:
        if self.scales_of is not None:
            return self.scales_of.scales()
        return find_scales(source, self.dataset, self.layout.dtype, self.progress)

    def _extract(self, draft: Draft, source: TapSource) -> None:
        forms = formats(source, draft.scales, self.layout.dtype)
        resources = Extraction(source, self.dataset, forms)
        with (
            _full_disk_explained(draft),
            _removed_where_empty(draft),
            closing(extract_taps(draft.missing, resources, self.progress)) as shards,
        ):
            draft.write(shards)

    def _log(self, draft: Draft | None) -> None:
        """Say what was found."""
        folder = self.layout.folder
        if draft is None:
            if folder.exists():
                _log.warning("the cache %s is damaged. It is computed again.", folder)
            _log_old(folder.parent)
        elif draft.missing:
            if (folder / INDEX).exists():
                text = "the cache %s is damaged from sample %d on. From there it is computed again."
                _log.warning(text, folder, draft.samples)
            else:
                text = "the cache %s is not finished. It is resumed at sample %d."
                _log.info(text, folder, draft.samples)


def _log_old(root: Path) -> None:
    old = sorted(path.parent.name for path in root.glob(f"*/{_OLD_INDEX}"))
    if old:
        text = "caches that an earlier version wrote are not used; delete them for their space: %s"
        _log.warning(text, ", ".join(str(root / name) for name in old))


@contextmanager
def _removed_where_empty(draft: Draft) -> Iterator[None]:
    """On an error before the first shard was whole, leave nothing behind."""
    try:
        yield
    finally:
        if not draft.done:
            shutil.rmtree(draft.layout.folder, ignore_errors=True)


@contextmanager
def _full_disk_explained(draft: Draft) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        layout = draft.layout
        kept = (
            f"The taps of the first {draft.samples} samples are kept in {layout.folder.name}: the "
            "same call resumes behind them."
            if draft.samples
            else "What was written of it is removed."
        )
        raise DataError(
            f"writing the feature cache in {layout.folder.parent} failed: {error.strerror}. It "
            f"needs {_readable(layout.num_bytes)}: free that much there, lift the limit on file "
            "sizes, choose another output folder, or train on fewer samples or cuts. "
            f"{kept} Other caches are untouched."
        ) from error


def _check_space(layout: Layout) -> None:
    """Refuse where what is not written yet would not fit."""
    sizes = stats(layout.folder, layout.files)
    needed = layout.num_bytes - sum(size for size, *_ in sizes.values())
    free = shutil.disk_usage(layout.folder.parent).free
    if free < needed:
        raise DataError(
            f"the feature cache needs {_readable(needed)} in {layout.folder.parent}, where "
            f"{_readable(free)} are free. Free some space, choose another output folder, or "
            "train on fewer samples or cuts."
        )


def _readable(num_bytes: int) -> str:
    if num_bytes >= 10**9:
        return f"{num_bytes / 10**9:.1f} GB"
    return f"{num_bytes / 10**6:.3g} MB" if num_bytes >= 10**6 else f"{num_bytes:,} bytes"


def _float64(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
