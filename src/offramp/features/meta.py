"""The meta file of a cache: what its other files hold, under its own digest."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from offramp.errors import BundleError
from offramp.features.tap import TapMeta
from offramp.spec import Spec
from offramp.storage.atomic import sha256_of

META = "meta.json"


class CacheMeta(Spec):
    """What a cache holds.

    Attributes:
        key: SHA-256 over `parts`.
        parts: Everything that decides the cache's content, in clear.
        taps: For each cut, its taps.
    """

    key: str
    parts: dict[str, Any]
    num_samples: int
    taps: dict[str, tuple[TapMeta, ...]]


def write_meta(folder: Path, meta: CacheMeta) -> None:
    """Write the meta file with its own digest, flushed to the disk."""
    content = meta.model_dump(mode="json")
    with (folder / META).open("w") as file:
        json.dump({"sha256": _digest(content), **content}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_meta(folder: Path, key: str) -> CacheMeta:
    """Read the meta file and check every file that it names.

    Raises:
        BundleError: Anything is missing, changed, or of another key.
    """
    try:
        content = json.loads((folder / META).read_text())
        right = content.pop("sha256") == _digest(content)
        meta = CacheMeta.model_validate(content)
    except (OSError, ValueError, LookupError, AttributeError, TypeError, ValidationError) as error:
        raise BundleError(f"the cache {folder} is damaged: {META} cannot be read.") from error
    if not right or meta.key != key:
        raise BundleError(f"the cache {folder} is damaged: {META} was changed.")
    for taps in meta.taps.values():
        for tap in taps:
            _check_file(folder / tap.file, tap)
    return meta


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, tap: TapMeta) -> None:
    if not path.is_file() or path.stat().st_size != tap.num_bytes:
        raise BundleError(f"the cache file {path} is missing or not of its recorded size.")
    if sha256_of(path) != tap.sha256:
        raise BundleError(f"the cache file {path} is damaged: its SHA-256 differs.")
