"""Measured times of this machine, stored in the manifest of a bundle."""

from collections.abc import Iterable
from pathlib import Path

from offramp.bundle.contents import read_manifest
from offramp.bundle.manifest import BundleManifest, Times
from offramp.storage.folder import changing, read_folder
from offramp.storage.manifest import BUNDLE


def save_times(folder: Path, times: Times) -> BundleManifest:
    """Store times in a bundle, first in its list; they replace older ones of the same set-up.

    That is the same engine, precision, threads, processor and cores. All else stays as it is.

    Raises:
        BundleError: The folder is not a bundle, or cannot be written.
    """
    stored = read_folder(folder, BUNDLE)
    manifest = read_manifest(stored.manifest, folder)
    changed = manifest.model_copy(update={"times": _with(manifest.times, times)})
    content = changed.model_dump(mode="json")
    with changing(folder, BUNDLE, content, keep=tuple(stored.manifest["files"])):
        pass
    return changed


def _with(before: Iterable[Times], times: Times) -> tuple[Times, ...]:
    others = [each for each in before if _set_up(each) != _set_up(times)]
    return (times, *others)


def _set_up(times: Times) -> tuple[object, ...]:
    return times.engine, times.precision, times.threads, times.processor, times.cores
