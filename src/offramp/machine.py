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
