"""Way: whether branches read taps from disk or straight from the backbone, and why."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from offramp.data.augment import Augment
from offramp.errors import PlanError
from offramp.storage.atomic import write_bytes

How = Literal["cached", "fused", "auto"]
FILE = "how.json"
_SHARE_OF_FREE_DISK = 0.9


@dataclass(frozen=True)
class Needs:
    """What each way would take, in bytes.

    Attributes:
        disk: Of the cached way: all taps, all views.
        memory: Of the fused way, at least: every branch's state and the taps of some batches.
    """

    disk: int
    memory: int


@dataclass(frozen=True)
class Allowed:
    """What a run may take, in bytes."""

    disk: int
    memory: int

    @classmethod
    def here(cls, folder: Path, disk_gb: float | None, memory_gb: float | None) -> "Allowed":
        """The figures given; where None, nine tenths of the free disk and the free memory."""
        free = int(_SHARE_OF_FREE_DISK * shutil.disk_usage(folder).free)
        return cls(
            free if disk_gb is None else int(disk_gb * 1e9),
            available_memory() if memory_gb is None else int(memory_gb * 1e9),
        )


@dataclass(frozen=True)
class Way:
    """The way that a run takes."""

    how: Literal["cached", "fused"]
    reason: str

    def __str__(self) -> str:
        return f"training {self.how}: {self.reason}"


def choose_way(how: How, needs: Needs, allowed: Allowed, augment: Augment | None) -> Way:
    """Decide how taps are supplied; `auto` caches wherever that can be done.

    Raises:
        PlanError: Fresh views are to be cached, or nothing that is allowed is enough.
    """
    fresh = augment is not None and augment.views is None
    if how == "cached" and fresh:
        raise PlanError(
            "augment without views makes a new view of every image in every epoch, but the cached "
            "way computes the taps of each image once. Train with how='fused', or give augment a "
            "fixed number of views, such as views=4, to be stored."
        )
    if how != "auto":
        return Way(how, "as asked for")
    taps, disk = _gigabytes(needs.disk), _gigabytes(allowed.disk)
    if not fresh and needs.disk <= allowed.disk:
        return Way("cached", f"the taps take {taps} of the {disk} allowed on disk")
    why = (
        "every epoch has new views of the images"
        if fresh
        else f"the taps would take {taps} on disk, where {disk} are allowed"
    )
    if needs.memory <= allowed.memory:
        return Way("fused", f"{why}, so each batch runs through the backbone again")
    raise PlanError(
        f"{why}, and training all branches from one backbone pass takes "
        f"{_gigabytes(needs.memory)} of memory, where {_gigabytes(allowed.memory)} are allowed. "
        "Train fewer branches, cuts or seeds at once, use smaller batches, or allow more with "
        "disk_gb or memory_gb."
    )


def recall_way(root: Path, about: Mapping[str, object]) -> Way | None:
    """The way that a job about the same took in this folder, if any.

    A run that is gone on with must not change its way because its own cache has filled the disk.
    """
    try:
        known = json.loads((root / FILE).read_text())
        return Way(known["how"], known["reason"]) if known["about"] == about else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_way(root: Path, about: Mapping[str, object], way: Way) -> None:
    """Keep the way taken; `recall_way` gives it back."""
    content = {**asdict(way), "about": about}
    write_bytes(root / FILE, json.dumps(content, indent=1).encode())


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping; all there is where none can say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        [free] = [line for line in lines if line.startswith("MemAvailable:")]
        return int(free.split()[1]) * 1024
    except (OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB"
