"""Found: finished caches in a folder that hold the needed taps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.features.draft import Draft, Layout
from offramp.features.executor import Executor
from offramp.features.keys import shared_parts
from offramp.features.store import INDEX, SHARDS, Index, is_unchanged, read_index, remember, stats
from offramp.progress import Progress


@dataclass(frozen=True)
class Found:
    """A finished cache."""

    folder: Path
    index: Index

    @property
    def layout(self) -> Layout:
        """Places of the shards in the files."""
        return Layout(
            self.folder,
            {name: tuple(tap.shape for tap in taps) for name, taps in self.index.taps.items()},
            {name: tuple(tap.file for tap in taps) for name, taps in self.index.taps.items()},
            self.index.parts["dtype"],
            self.index.num_samples,
            self.index.parts["batch_size"],
        )

    def whole_samples(self, executor: Executor, progress: Progress) -> int:
        """Read and hash every byte; return the number of intact samples, from the first on."""
        draft = Draft.found(self.layout, self.index.key, executor, progress)
        return 0 if draft is None else draft.samples

    def is_whole(self, executor: Executor, progress: Progress) -> bool:
        """Whether all files are intact; they are read only if they look changed."""
        if is_unchanged(self.folder, self.index):
            return True
        before = stats(self.folder, [SHARDS, *self.layout.files])
        if self.whole_samples(executor, progress) < self.index.num_samples:
            return False
        remember(self.folder, before)
        return True


def holding(root: Path, parts: Mapping[str, Any]) -> dict[str, Found]:
    """For each cut of a key, a finished cache in a folder of caches that has its taps.

    Files are not checked. Only the cuts may differ from the key's parts.
    """
    wanted, common = parts["cuts"], shared_parts(parts)
    found: dict[str, Found] = {}
    for path in sorted(root.glob(f"*/{INDEX}")):
        index = read_index(path.parent)
        if index is not None and shared_parts(index.parts) == common:
            has = [cut for cut in wanted if index.parts["cuts"].get(cut) == wanted[cut]]
            found |= {cut: Found(path.parent, index) for cut in has if cut not in found}
    return found
