"""How many cores this process may use."""

import math
import os
from pathlib import Path

_SYSTEM = Path("/sys")


def usable_cores(system: Path = _SYSTEM) -> int:
    """Cores this process may use: affinity and a container's quota counted, hyperthreads not.

    Args:
        system: Where the kernel describes the processor and the process's control group.
    """
    cores = len({_siblings(system, number) for number in _processors()})
    return max(1, min(cores, _quota(system)))


def _processors() -> set[int]:
    """Numbers of the logical processors that the process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(system: Path, number: int) -> str:
    """The logical processors on the same core as this one, as the kernel lists them."""
    listed = system / f"devices/system/cpu/cpu{number}/topology/thread_siblings_list"
    try:
        return listed.read_text("utf-8").strip()
    except OSError:
        return str(number)


def _quota(system: Path) -> int:
    """Cores that the control group allows, rounded up; very many where it sets no limit."""
    try:
        allowed, period = (system / "fs/cgroup/cpu.max").read_text("utf-8").split()
        return math.ceil(int(allowed) / int(period))
    except (OSError, ValueError):  # ValueError: "max", no limit
        return 1_000_000
