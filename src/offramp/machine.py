"""The machine and the versions of libraries that numbers were measured with."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("offramp", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def environment(device: str, threads: int) -> dict[str, Any]:
    """Facts of this machine, for `environment.json` and the report.

    Args:
        device: As reports name it.
        threads: CPU threads that the work used.
    """
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
        "versions": versions,
    }


def processor_name() -> str:
    """Name of the processor: as the kernel gives it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory() -> int | None:
    """Largest memory of this process so far, in bytes; None if the system does not say."""
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if platform.system() == "Darwin" else most * 1024


def memory_in_use() -> tuple[int, int] | None:
    """Memory of this process in RAM, now and at most so far, in bytes; None if not known.

    Other than `peak_memory`, it does not count what the process was before it became this program.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    if "VmRSS" not in found or "VmHWM" not in found:
        return None
    now, most = (1024 * int(found[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now, most
