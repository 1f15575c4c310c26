"""A lock on a folder, so that only one process at a time writes there.

The operating system releases the lock when its process ends, for whatever reason.
"""

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from offramp.errors import BundleError

LOCK = ".lock"
_HOLDER = ".lock-holder"
_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, *, what: str = "", patience: float = 3.0) -> Iterator[None]:
    """Hold the lock of an existing folder, waiting as long as another process holds it.

    Args:
        folder: The folder, in which a file `.lock` is created and stays.
        what: Name of one of several locks, for parts of the folder that are written separately.
        patience: Seconds of waiting before the log names the process that holds the lock.

    Raises:
        BundleError: The folder cannot be written to.
    """
    lock_file, note = (folder / f"{name}{what and f'-{what}'}" for name in (LOCK, _HOLDER))
    _check_writable(lock_file)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        _log.warning("waiting for %s, which is writing in %s", _holder(note), folder)
        lock.acquire(timeout=-1)
    try:
        _sign(note)
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def _check_writable(lock_file: Path) -> None:
    """Refuse a folder in which the lock cannot be created; otherwise waiting would never end."""
    try:
        with lock_file.open("ab"):
            pass
    except OSError as error:
        raise BundleError(
            f"the folder {lock_file.parent} cannot be written to: {error.strerror}. Choose another "
            "output folder, or allow writing there."
        ) from error


def _sign(path: Path) -> None:
    """Leave a note for waiting processes. Nothing depends on it, so a full disk is not an error."""
    try:
        note = json.dumps({"process": os.getpid(), "host": socket.gethostname()})
        path.write_text(note, encoding="utf-8")
    except OSError:
        _log.debug("could not note in %s which process holds the lock", path, exc_info=True)


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"process {note['process']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
