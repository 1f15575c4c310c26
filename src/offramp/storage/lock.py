"""A lock on a folder, so that one process at a time writes there.

The operating system releases the lock when the process that holds it ends, however it ends.
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
def locked(folder: Path, *, patience: float = 3.0) -> Iterator[None]:
    """Hold the lock of an existing folder, waiting as long as another process holds it.

    Args:
        folder: Gets a file `.lock`, which stays.
        patience: Seconds of waiting after which the log says which process holds the lock.

    Raises:
        BundleError: The folder cannot be written to.
    """
    _check_writable(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        _log.warning("waiting for %s, which is writing in %s", _holder(folder), folder)
        lock.acquire(timeout=-1)
    try:
        _sign(folder)
        yield
    finally:
        with suppress(OSError):
            (folder / _HOLDER).unlink()
        lock.release()


def _check_writable(folder: Path) -> None:
    """Refuse a folder that the lock could not be made in; waiting for that would never end."""
    try:
        with (folder / LOCK).open("ab"):
            pass
    except OSError as error:
        raise BundleError(
            f"the folder {folder} cannot be written to: {error.strerror}. Choose another output "
            "folder, or allow writing there."
        ) from error


def _sign(folder: Path) -> None:
    """Leave a note for those who wait; nothing depends on it, so a full disk is not an error."""
    try:
        note = json.dumps({"process": os.getpid(), "host": socket.gethostname()})
        (folder / _HOLDER).write_text(note, encoding="utf-8")
    except OSError:
        _log.debug("the holder of the lock on %s could not be noted", folder, exc_info=True)


def _holder(folder: Path) -> str:
    try:
        note = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {note['process']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
