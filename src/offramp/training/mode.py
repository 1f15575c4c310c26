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
from offramp.spec import TapShape, dims
from offramp.storage.atomic import write_bytes
from offramp.table import bytes_text
from offramp.training.settings import How, TrainSettings

FILE = "how.json"
_SHARE_OF_FREE_DISK = 0.9
_STATES_OF_A_WEIGHT = 5  # itself, its gradient, two moments of Adam, its best


@dataclass(frozen=True)
class Needs:
    """Bytes that each mode needs.

    Attributes:
        disk: Size of all taps of all views, for the cached mode.
        memory: Least memory for the fused mode: the states of all branches and the taps of some
            batches.
        there: The part of `disk` that is written already.
    """

    disk: int
    memory: int
    there: int = 0

    @classmethod
    def of(
        cls,
        shapes: Sequence[TapShape],
        stored: int,
        num_params: int,
        samples: tuple[int, int],
        settings: TrainSettings,
        ahead: int,
    ) -> "Needs":
        """Compute both for these taps and branches.

        Args:
            shapes: Shapes of all taps at all cuts.
            stored: Bytes that a cache takes per sample.
            num_params: Number of parameters of all branches.
            samples: Numbers of training and of validation samples.
            settings: How branches are trained.
            ahead: Number of batches of taps that the fused mode may hold at once.
        """
        train, validation = samples
        views = 1 if settings.augment is None else settings.augment.views or 1
        weights = num_params * settings.num_trials * _STATES_OF_A_WEIGHT
        values = sum(math.prod(dims(shape)) for shape in shapes) * settings.batch_size * ahead
        return cls(stored * (views * train + validation), 4 * (weights + values))


@dataclass(frozen=True)
class Allowed:
    """Bytes that a run may use."""

    disk: int
    memory: int

    @classmethod
    def here(cls, folder: Path, disk_gb: float | None, memory_gb: float | None) -> "Allowed":
        """The limits given, or else nine tenths of the free disk and all free memory."""
        free = int(_SHARE_OF_FREE_DISK * free_disk(folder))
        return cls(
            free if disk_gb is None else int(disk_gb * 1e9),
            available_memory() if memory_gb is None else int(memory_gb * 1e9),
        )


@dataclass(frozen=True)
class Mode:
    """How a run supplies taps."""

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
    """The mode of this call: that of an earlier call with the same settings here, or a new choice.

    A resumed run must not change its mode because its own cache has filled the disk.

    Args:
        root: Folder in which the mode is noted.
        cuts: Cuts with branches.
        needs: Bytes that each mode needs.
        settings: How branches are trained.
        taps: Folder for the taps of the cached mode.
        keep: Whether to note the mode for later calls.

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
    """Decide how taps are supplied; `auto` caches wherever possible.

    Raises:
        PlanError: New views per epoch cannot be cached, or the limits allow no mode.
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
        taps = f"{taps} ({_gigabytes(needs.there)} are written already)"
    if not fresh and needs.disk - needs.there <= allowed.disk:
        return Mode("cached", f"the taps take {taps} of the {disk} allowed on disk")
    why = (
        "every epoch has new views of the images"
        if fresh
        else f"the taps would take {taps} on disk, but only {disk} is allowed"
    )
    if needs.memory <= allowed.memory:
        return Mode("fused", f"{why}, so each batch runs through the backbone again")
    raise PlanError(
        f"{why}, and training all branches from one backbone pass takes "
        f"{_gigabytes(needs.memory)} of memory, but only {_gigabytes(allowed.memory)} is allowed. "
        "Train fewer branches, cuts or seeds at once, use smaller batches, or allow more with "
        "disk_gb or memory_gb."
    )


def recall_mode(root: Path, about: Mapping[str, object]) -> Mode | None:
    """The mode of an earlier call with the same settings in this folder, if any."""
    try:
        known = json.loads((root / FILE).read_text(encoding="utf-8"))
        return Mode(known["how"], known["reason"]) if known["about"] == about else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_mode(root: Path, about: Mapping[str, object], mode: Mode) -> None:
    """Note the mode for `recall_mode`."""
    content = {**asdict(mode), "about": about}
    write_bytes(root / FILE, json.dumps(content, indent=1).encode())


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not exist yet."""
    return shutil.disk_usage(_nearest(folder)).free


def same_disk(one: Path, other: Path) -> bool:
    """Whether two folders, which may not exist yet, are on the same disk."""
    return _nearest(one).stat().st_dev == _nearest(other).stat().st_dev


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    path = folder.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def available_memory() -> int:
    """Bytes of memory that are free without swapping, or all memory if that is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        [free] = [line for line in lines if line.startswith("MemAvailable:")]
        return int(free.split()[1]) * 1024
    except (OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e8 else bytes_text(num_bytes)
