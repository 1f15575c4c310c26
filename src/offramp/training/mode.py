"""Mode: whether branches read taps from the disk or straight from the backbone, and why."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from offramp.data.augment import Augment
from offramp.errors import PlanError
from offramp.features import bytes_per_sample
from offramp.spec import TapShape, dims
from offramp.storage.atomic import write_bytes
from offramp.table import bytes_text
from offramp.training.settings import How, TrainSettings

FILE = "how.json"
_SHARE_OF_FREE_DISK = 0.9
_STATES_OF_A_WEIGHT = 5  # itself, its gradient, two moments of Adam, its best


@dataclass(frozen=True)
class Needs:
    """What each mode would take, in bytes.

    Attributes:
        disk: Of the cached mode: all taps, all views.
        memory: Of the fused mode, at least: every branch's state and the taps of some batches.
        there: How much of `disk` is written already.
    """

    disk: int
    memory: int
    there: int = 0

    @classmethod
    def of(
        cls,
        shapes: Sequence[TapShape],
        num_params: int,
        samples: tuple[int, int],
        settings: TrainSettings,
        ahead: int,
    ) -> "Needs":
        """What these taps and branches take.

        Args:
            shapes: Of all taps at all cuts.
            num_params: Of all branches, each counted once.
            samples: For training and for validation.
            settings: How they are trained.
            ahead: Batches of taps that the fused mode may hold at once.
        """
        train, validation = samples
        views = 1 if settings.augment is None else settings.augment.views or 1
        each = sum(bytes_per_sample(dims(shape), settings.cache_dtype) for shape in shapes)
        weights = num_params * settings.num_trials * _STATES_OF_A_WEIGHT
        values = sum(math.prod(dims(shape)) for shape in shapes) * settings.batch_size * ahead
        return cls(each * (views * train + validation), 4 * (weights + values))


@dataclass(frozen=True)
class Allowed:
    """What a run may take, in bytes."""

    disk: int
    memory: int

    @classmethod
    def here(cls, folder: Path, disk_gb: float | None, memory_gb: float | None) -> "Allowed":
        """The figures given; where None, nine tenths of the free disk and the free memory."""
        free = int(_SHARE_OF_FREE_DISK * free_disk(folder))
        return cls(
            free if disk_gb is None else int(disk_gb * 1e9),
            available_memory() if memory_gb is None else int(memory_gb * 1e9),
        )


@dataclass(frozen=True)
class Mode:
    """The mode that a run takes."""

    how: Literal["cached", "fused"]
    reason: str

    def __str__(self) -> str:
        return f"training {self.how}: {self.reason}"


def mode_in(
    root: Path,
    cuts: Sequence[str],
    needs: Needs,
    settings: TrainSettings,
    taps: Path,
    *,
    keep: bool = True,
) -> Mode:
    """The mode of this call, which is that of an earlier call about the same in this folder.

    A resumed run must not change its mode because its own cache has filled the disk.

    Args:
        root: Where the mode is kept.
        cuts: With branches.
        needs: Of each mode.
        settings: How branches are trained.
        taps: Where the cached mode would keep the taps.
        keep: Write the mode down for later calls.

    Raises:
        PlanError: As `choose_mode`.
    """
    about = settings.model_dump(mode="json", include={"how", "augment"})
    about |= {"cuts": sorted(cuts), "bytes": needs.disk}
    mode = recall_mode(root, about)
    if mode is None:
        allowed = Allowed.here(taps, settings.disk_gb, settings.memory_gb)
        mode = choose_mode(settings.how, needs, allowed, settings.augment)
        if keep:
            remember_mode(root, about, mode)
    return mode


def choose_mode(how: How, needs: Needs, allowed: Allowed, augment: Augment | None) -> Mode:
    """Decide how taps are supplied; `auto` caches wherever that can be done.

    Raises:
        PlanError: Fresh views are to be cached, or nothing that is allowed is enough.
    """
    fresh = augment is not None and augment.views is None
    if how == "cached" and fresh:
        raise PlanError(
            "augment without views makes a new view of every image in every epoch, but the cached "
            "mode computes the taps of each image once. Train with how='fused', or give augment a "
            "fixed number of views, such as views=4, to be stored."
        )
    if how != "auto":
        return Mode(how, "as asked for")
    taps, disk = _gigabytes(needs.disk), _gigabytes(allowed.disk)
    if needs.there:
        taps = f"{taps} ({_gigabytes(needs.there)} are there already)"
    if not fresh and needs.disk - needs.there <= allowed.disk:
        return Mode("cached", f"the taps take {taps} of the {disk} allowed on disk")
    why = (
        "every epoch has new views of the images"
        if fresh
        else f"the taps would take {taps} on disk, where {disk} are allowed"
    )
    if needs.memory <= allowed.memory:
        return Mode("fused", f"{why}, so each batch runs through the backbone again")
    raise PlanError(
        f"{why}, and training all branches from one backbone pass takes "
        f"{_gigabytes(needs.memory)} of memory, where {_gigabytes(allowed.memory)} are allowed. "
        "Train fewer branches, cuts or seeds at once, use smaller batches, or allow more with "
        "disk_gb or memory_gb."
    )


def recall_mode(root: Path, about: Mapping[str, object]) -> Mode | None:
    """The mode that an earlier call about the same took in this folder, if any."""
    try:
        known = json.loads((root / FILE).read_text(encoding="utf-8"))
        return Mode(known["how"], known["reason"]) if known["about"] == about else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_mode(root: Path, about: Mapping[str, object], mode: Mode) -> None:
    """Keep the mode taken; `recall_mode` gives it back."""
    content = {**asdict(mode), "about": about}
    write_bytes(root / FILE, json.dumps(content, indent=1).encode())


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be made."""
    return shutil.disk_usage(_nearest(folder)).free


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders are, or would be made, on the same disk."""
    return _nearest(one).stat().st_dev == _nearest(other).stat().st_dev


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    path = folder.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping; all there is where none can say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        [free] = [line for line in lines if line.startswith("MemAvailable:")]
        return int(free.split()[1]) * 1024
    except (OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e8 else bytes_text(num_bytes)
