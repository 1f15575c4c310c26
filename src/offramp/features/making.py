"""Making a cache: compute what is missing or damaged, and explain a full disk."""

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from offramp.backbones.staged import StagedBackbone
from offramp.data import Samples
from offramp.errors import DataError
from offramp.features.draft import Draft, Layout
from offramp.features.executor import Executor
from offramp.features.extract import Extraction, Scales, extract_taps, find_scales, formats
from offramp.features.source import TapSource
from offramp.features.store import INDEX, Index, stats
from offramp.progress import Progress
from offramp.table import bytes_text

_OLD_INDEX = "meta.json"  # of formats 1 and 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Making:
    """Completes a cache.

    Attributes:
        scales: Scales of the training data; None if this is the training data.
    """

    backbone: StagedBackbone
    dataset: Samples
    layout: Layout
    scales: Scales | None
    executor: Executor
    device: torch.device
    progress: Progress

    def whole(self, key: str, parts: dict[str, Any]) -> Index:
        """Compute what is missing or damaged, and return the index.

        Raises:
            DataError: Too little space, a failed write, or a value that cannot be stored.
        """
        draft = Draft.found(self.layout, key, self.executor, self.progress)
        self._log(draft)
        if draft is None or draft.missing:
            _check_space(self.layout)
            source = TapSource.of(
                self.backbone, tuple(self.layout.shapes), self.device, self.executor
            )
            draft = draft or Draft.begin(self.layout, key, self._scales(source), source.way)
            self._extract(draft, source)
        with _full_disk_explained(draft):
            return draft.finish(parts)

    def _scales(self, source: TapSource) -> Scales:
        if self.scales is not None:
            return {name: self.scales[name] for name in self.layout.shapes}
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
        """Log the state of the cache that was found."""
        folder = self.layout.folder
        if draft is None:
            if folder.exists():
                _log.warning("the cache %s is damaged. It will be recomputed.", folder)
            _log_old(folder.parent)
        elif draft.missing:
            if (folder / INDEX).exists():
                text = (
                    "the cache %s is damaged from sample %d on. It will be recomputed from there."
                )
                _log.warning(text, folder, draft.samples)
            else:
                text = "the cache %s is not finished. It will be resumed at sample %d."
                _log.info(text, folder, draft.samples)


def _log_old(root: Path) -> None:
    old = sorted(path.parent.name for path in root.glob(f"*/{_OLD_INDEX}"))
    if old:
        text = "caches that an earlier version wrote are not used; delete them to free space: %s"
        _log.warning(text, ", ".join(str(root / name) for name in old))


@contextmanager
def _removed_where_empty(draft: Draft) -> Iterator[None]:
    """Remove the folder after an error before the first complete shard."""
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
            "same call resumes after them."
            if draft.samples
            else "The part that was written has been removed."
        )
        raise DataError(
            f"writing the feature cache in {layout.folder.parent} failed: {error.strerror}. It "
            f"needs {bytes_text(layout.num_bytes)}: free that much there, raise the limit on file "
            "sizes, choose another output folder, or train on fewer samples or cuts. "
            f"{kept} Other caches are untouched."
        ) from error


def _check_space(layout: Layout) -> None:
    """Refuse if the missing part would not fit on the disk."""
    sizes = stats(layout.folder, layout.files)
    needed = layout.num_bytes - sum(size for size, *_ in sizes.values())
    free = shutil.disk_usage(layout.folder.parent).free
    if free < needed:
        raise DataError(
            f"the feature cache needs {bytes_text(needed)} in {layout.folder.parent}, which "
            f"has only {bytes_text(free)} free. Free some space, choose another output folder, or "
            "train on fewer samples or cuts."
        )
