"""Atomic writing: a file is the old one or the complete new one, whatever happens."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offramp.errors import BundleError

_CHUNK_BYTES = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, which replaces `path` on success.

    The suffix is kept, since some writers choose their format by it. On any exception the
    temporary file is removed and `path` stays as it was. A process that is killed here leaves
    its temporary file behind; the next one that writes to the same path removes it.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    _remove_leftovers(path)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files for `path` whose processes have ended."""
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)\.tmp{re.escape(path.suffix)}")
    for each in path.parent.iterdir():
        match = pattern.fullmatch(each.name)
        if match and not _is_running(int(match[1])):
            each.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether a process is running; True if that cannot be told."""
    if os.name == "nt":  # signal 0 would interrupt it there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on disk.

    Does nothing for a folder on Windows, where folders cannot be flushed.
    """
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing; its folder is created if it is missing.

    Raises:
        BundleError: The file cannot be written; an earlier file stays.
    """
    if path.is_dir():
        raise BundleError(f"{path} is a folder, so no file can be written there. Name a file.")
    make_folder(path.parent)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise BundleError(
            f"cannot write {path}: {error.strerror}. Choose a folder that can be written and has "
            "room."
        ) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        BundleError: The path cannot be created or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(
            f"the folder {path} cannot be created: {error.strerror}. Choose a path that you may "
            "write to."
        ) from error
    return path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
