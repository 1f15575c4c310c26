"""The manifest of a stored folder: its kind, its content, and the digest of every file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from offramp.errors import BundleError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FolderKind:
    """A kind of stored folder, with the advice that errors about it give.

    Attributes:
        name: Name of the kind.
        schema: Version of the manifest's content. Other versions are refused.
        missing: Advice for a folder without a manifest.
        remedies: Pairs of a pattern and the advice for a damaged file whose name matches. The
            first match counts, and the last pattern must match every name.
    """

    name: str
    schema: int
    missing: str
    remedies: tuple[tuple[str, str], ...]

    @property
    def format(self) -> str:
        """Format that a manifest of this kind states."""
        return f"offramp {self.name} {self.schema}"

    def remedy(self, file: str) -> str:
        """Advice for a damaged file."""
        return next(text for pattern, text in self.remedies if fnmatch(file, pattern))


_EVALUATE = "Run `offramp evaluate` on this folder to write it again."

RUN = FolderKind(
    name="run",
    schema=2,
    missing=(
        "A run folder is what `offramp train` or `MultiExit.save` wrote. If training was "
        "stopped, repeat the same `offramp train` and it resumes."
    ),
    remedies=(
        ("policy.json", "Run `offramp calibrate` on this folder to write it again."),
        (
            "policy-without-*.json",
            "Run `offramp calibrate --without INPUT` on this folder to write it again.",
        ),
        ("outputs/*", _EVALUATE),
        ("metrics.json", _EVALUATE),
        ("environment.json", _EVALUATE),
        ("report.html", _EVALUATE),
        ("tradeoff.*", _EVALUATE),
        ("plan.yaml", "Delete it, then run `offramp evaluate` on this folder to write it again."),
        (
            "*",
            "Restore it from a copy. If there is none, delete everything that offramp wrote here "
            "except plan.yaml and work, and repeat the same `offramp train`. If "
            "`MultiExit.save` wrote the folder, save the model again to another one.",
        ),
    ),
)
"""What `offramp train` and `MultiExit.save` write."""

BACKBONE = FolderKind(
    name="backbone",
    schema=2,
    missing=(
        "A backbone folder is what `offramp finetune` wrote. If finetuning was stopped, repeat the "
        "same `offramp finetune` and it resumes."
    ),
    remedies=(
        (
            "*",
            "Restore it from a copy. If there is none, delete everything that offramp wrote here, "
            "and repeat the same `offramp finetune`.",
        ),
    ),
)
"""What `offramp finetune` writes."""


BUNDLE = FolderKind(
    name="bundle",
    schema=1,
    missing="A bundle is a folder that `offramp export` or `offramp.export` wrote.",
    remedies=(
        ("policy*.json", "Run `offramp calibrate` on this folder to write it again."),
        (
            "outputs/*",
            "Run `offramp evaluate` on this folder, with --data, to write it again.",
        ),
        ("*", "Copy the bundle here again, or export it again."),
    ),
)
"""What `offramp export` writes."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder's manifest says that it is a bundle, of any version."""
    try:
        body = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and str(body.get("format")).startswith(f"offramp {BUNDLE.name} ")


def kind_of(folder: Path) -> FolderKind:
    """Whether a folder is a bundle or else, as far as its manifest can be read, a run."""
    return BUNDLE if is_bundle(folder) else RUN


def sealed(kind: FolderKind, content: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """A manifest as bytes, with its own digest in it.

    Args:
        kind: Kind of the folder.
        content: Values to store, as JSON.
        files: SHA-256 of each file, by relative name.
    """
    return _with_digest({**content, "format": kind.format, "files": dict(files)})


def opened(raw: bytes, path: Path, kind: FolderKind) -> dict[str, Any]:
    """The content of a manifest, `files` included.

    Raises:
        BundleError: It is of another kind or version, or was changed.
    """
    damaged = BundleError(
        f"{path} was changed or damaged after it was written: its digest does not match. "
        f"{kind.remedy(MANIFEST)}"
    )
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise damaged from error
    if isinstance(body, dict) and not {"digest", "format"} & body.keys():
        raise BundleError(f"{path} is not a manifest that offramp wrote. Choose another folder.")
    if not isinstance(body, dict) or "digest" not in body:
        raise damaged
    body.pop("digest")
    if _with_digest(body) != raw:
        raise damaged
    if body["format"] != kind.format:
        raise BundleError(
            f"{path} has format {body['format']!r}, but this version of offramp reads "
            f"{kind.format!r} here. Name a folder of that kind, or use the version of offramp "
            "that wrote this one."
        )
    if any(_leaves(name) for name in body["files"]):
        raise damaged
    return body


def _leaves(name: str) -> bool:
    """Whether a name leads out of its folder."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _with_digest(body: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "digest": digest})


def _canonical(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
