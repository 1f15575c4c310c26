"""The manifest of a stored folder: what is in it, and the digests that every reader checks."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from offramp.errors import BundleError
from offramp.storage.atomic import sha256_of, write_bytes

MANIFEST = "manifest.json"
_FORMAT = "offramp/1"


def write_manifest(folder: Path, content: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write the manifest, with the SHA-256 of each file (relative names) and of itself."""
    body = {
        "format": _FORMAT,
        **content,
        "files": {name: sha256_of(folder / name) for name in sorted(files)},
    }
    write_bytes(folder / MANIFEST, _sealed(body))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check its own digest.

    Raises:
        BundleError: It is missing, of another format, or not byte for byte what was written.
    """
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}), so {folder} is no run. A run folder is "
            "what `offramp train` or `MultiExit.save` wrote; where training was stopped, the "
            "same `offramp train` goes on."
        ) from error
    damaged = BundleError(
        f"{path} was changed or damaged after it was written: its digest does not match. "
        "Restore it from a copy, or train again."
    )
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise damaged from error
    if not isinstance(body, dict) or "digest" not in body:
        raise damaged
    body.pop("digest")
    if _sealed(body) != raw:
        raise damaged
    if body["format"] != _FORMAT:
        raise BundleError(
            f"{path} has format {body['format']!r}, this version reads {_FORMAT!r}. "
            "Use the version of offramp that wrote it."
        )
    return body


def read_file(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a file that the manifest lists, checked against its digest.

    Raises:
        BundleError: The file is not listed, missing, or differs in any byte.
    """
    path = folder / name
    expected = manifest["files"].get(name)
    if expected is None:
        raise BundleError(f"{folder / MANIFEST} lists no file {name!r}. Train again.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}. Restore it from a copy, or train again."
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(
            f"{path} was changed or damaged after it was written: its SHA-256 does not match the "
            "manifest. Restore it from a copy; `offramp evaluate` writes outputs and report of a "
            "run anew, training again its model."
        )
    return content


def _sealed(body: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "digest": digest})


def _canonical(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
