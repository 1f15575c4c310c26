"""A stored folder: its files change together or not at all, and reading gives one state.

A change is written to `.next` and flushed to disk. Renaming `.next` to `.ready` commits it: before
that the folder holds the old state, and after it whoever opens the folder completes the change. To
complete it, files are moved into place and the manifest last, so the old manifest stays until all
files are moved; every step can be repeated. Writers hold the folder's lock.

Readers hold no lock. They compare each file with its digest in the manifest, so all that they
accept is of one state. If something does not match, they take the lock, complete an interrupted
change, and read again.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from offramp.errors import BundleError
from offramp.storage.atomic import flush, make_folder, sha256_of, write_bytes
from offramp.storage.lock import locked
from offramp.storage.manifest import MANIFEST, FolderKind, opened, sealed

NEXT = ".next"
READY = ".ready"


@dataclass(frozen=True)
class Contents:
    """Files read from a stored folder, all of one state.

    Attributes:
        folder: The folder.
        manifest: Content of the manifest.
        files: Content of the files, by name.
    """

    folder: Path
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]


def is_stored(folder: Path) -> bool:
    """Whether a folder holds a stored state, or a committed change that is to be completed."""
    return (folder / MANIFEST).exists() or (folder / READY / MANIFEST).exists()


def owner_of(file: Path, kind: FolderKind, reserved: Collection[str] = ()) -> Path | None:
    """The stored folder whose own file this is; None if the file is in none, or only lies in one.

    Args:
        file: May be missing.
        kind: Kind of the folder. Damaged folders own nothing.
        reserved: Names of files that belong to such a folder even before it has them.
    """
    place = file.parent.resolve() / file.name  # a link as the file itself would be replaced
    for folder in place.parents:
        names = _listed(folder, kind)
        own = names is not None and {MANIFEST, *names, *reserved}
        if own and place.relative_to(folder).as_posix() in own:
            return folder
    return None


def check_free(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder that has files of these names but no readable manifest.

    Raises:
        BundleError: It lists what would be overwritten.
    """
    if taken := sorted(name for name in names if os.path.lexists(folder / name)):
        raise BundleError(
            f"{folder} is not a complete folder written by this version of offramp, and it "
            f"contains {', '.join(taken)}, which would be overwritten. Choose another folder, or "
            "move these files elsewhere."
        )


def read_folder(
    folder: Path, kind: FolderKind, names: Collection[str] = (), optional: Collection[str] = ()
) -> Contents:
    """Read files that the manifest lists, checked against their digests.

    Args:
        folder: The stored folder.
        kind: Which kind it must be.
        names: Files that must be there.
        optional: Files that are read if the manifest lists them; `*` stands for any text.

    Raises:
        BundleError: There is no such folder of this kind, a file is missing or not listed, or
            differs in any byte from what was written.
    """
    if not (folder / READY).exists():
        try:
            return _read(folder, kind, names, optional)
        except BundleError:  # perhaps while another process was changing the folder
            if not is_stored(folder) or not os.access(folder, os.W_OK):
                raise
    with locked(folder):
        _finish(folder, kind)
        return _read(folder, kind, names, optional)


@contextmanager
def changing(
    folder: Path,
    kind: FolderKind,
    content: Mapping[str, Any] | None = None,
    *,
    keep: Collection[str] = (),
    since: Contents | None = None,
) -> Iterator[Path]:
    """Yield a place for new files; on success they are in the folder, with a new manifest.

    Do not read the folder in the block. On any error it stays as it was.

    Args:
        folder: Created if it does not exist. Files that the manifest does not list stay.
        kind: Kind of the folder.
        content: Content of the new manifest. None keeps the content and all other files.
        keep: Files of the current manifest that stay unless they are replaced; its other files
            are removed.
        since: What was read from the folder, if the new files were computed from it.

    Raises:
        BundleError: The folder cannot be written, or has no manifest of this kind but files of
            these names, or a file of `since` was replaced; with `content=None` also if its
            manifest is missing or damaged.
    """
    make_folder(folder)
    with locked(folder):
        staged = folder / NEXT
        try:
            _finish(folder, kind)
            if since is not None:
                _check_unchanged(folder, kind, since)
            staged.mkdir()
            yield staged
            _seal(folder, staged, kind, content, keep)
            _flush_all(staged)
            staged.rename(folder / READY)
            flush(folder)
            _finish(folder, kind)
        except OSError as error:
            raise BundleError(
                f"cannot write in {folder}: {error.strerror or error}. Choose a folder that can "
                "be written and has room."
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def _read(
    folder: Path, kind: FolderKind, names: Collection[str], optional: Collection[str]
) -> Contents:
    manifest = _manifest(folder, kind)
    listed = [
        name
        for name in manifest["files"]
        if name not in names and any(fnmatchcase(name, pattern) for pattern in optional)
    ]
    files = {name: _file(folder, kind, manifest, name) for name in (*names, *listed)}
    return Contents(folder, manifest, files)


def _manifest(folder: Path, kind: FolderKind) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        if not os.path.isdir(folder):  # noqa: PTH112  (pathlib's raises on some paths)
            raise BundleError(f"there is no folder {folder}. {kind.missing}") from error
        raise BundleError(
            f"{path} cannot be read ({error.strerror}), so {folder} is not a finished "
            f"{kind.name}. {kind.missing}"
        ) from error
    return opened(raw, path, kind)


def _file(folder: Path, kind: FolderKind, manifest: Mapping[str, Any], name: str) -> bytes:
    path, expected = folder / name, manifest["files"].get(name)
    if expected is None:
        raise BundleError(f"{folder / MANIFEST} lists no file {name!r}. {kind.remedy(name)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read: {error.strerror}. {kind.remedy(name)}"
        ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(
            f"{path} was changed or damaged after it was written: its SHA-256 does not match the "
            f"manifest. {kind.remedy(name)}"
        )
    return content


def _seal(
    folder: Path,
    staged: Path,
    kind: FolderKind,
    content: Mapping[str, Any] | None,
    keep: Collection[str],
) -> None:
    """Write the new manifest beside the new files."""
    if content is None:
        content = _manifest(folder, kind)
        kept = content["files"]
    else:
        listed = _listed(folder, kind)
        if listed is None:
            check_free(folder, {MANIFEST, *_files_below(staged)})
        kept = {name: digest for name, digest in (listed or {}).items() if name in keep}
    new = {name: sha256_of(staged / name) for name in _files_below(staged)}
    write_bytes(staged / MANIFEST, sealed(kind, content, {**kept, **new}))


def _check_unchanged(folder: Path, kind: FolderKind, since: Contents) -> None:
    before, now = since.manifest["files"], _listed(folder, kind) or {}
    replaced = sorted(name for name in since.files if now.get(name) != before[name])
    if replaced:
        raise BundleError(
            f"another process replaced {', '.join(replaced)} in {folder} after they were read, so "
            "what was computed from them does not belong there any more and was not written. "
            "Run the same command again."
        )


def _listed(folder: Path, kind: FolderKind) -> dict[str, str] | None:
    """Files of the current manifest; None if it is missing, damaged or of another kind."""
    try:
        files: dict[str, str] = _manifest(folder, kind)["files"]
    except BundleError:
        return None
    return files


def _finish(folder: Path, kind: FolderKind) -> None:
    """Complete a committed change and drop any other. The caller holds the lock."""
    ready = folder / READY
    if (ready / MANIFEST).exists():
        for name in set(_listed(folder, kind) or ()) - set(_listed(ready, kind) or ()):
            (folder / name).unlink(missing_ok=True)
        names = [name for name in _files_below(ready) if name != MANIFEST]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (ready / name).replace(folder / name)
        for place in {(folder / name).parent for name in names}:
            flush(place)
        (ready / MANIFEST).replace(folder / MANIFEST)
        flush(folder)
    for left in (ready, folder / NEXT):
        if left.exists():
            shutil.rmtree(left)


def _files_below(folder: Path) -> list[str]:
    """Relative names of all files, with `/` between their parts."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _flush_all(folder: Path) -> None:
    """Flush every file and folder below, so that a commit cannot reach the disk before them."""
    for path in (*folder.rglob("*"), folder):
        flush(path)
