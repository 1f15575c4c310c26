"""What holds for every test: one thread, no window, no network; and moments of a kill."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch or matplotlib; subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Refuse connections to other machines, but for tests marked `network`."""
    if item.get_closest_marker("network"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _only_here(socket.socket.connect))
        return (yield)


def _only_here(connect: object) -> object:
    def guarded(self: socket.socket, address: object) -> object:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise PermissionError(f"a test without the network mark connects to {address}")
        return connect(self, address)  # type: ignore[operator]

    return guarded


FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}
SMALL_BYTES = 100_000


@pytest.fixture
def moments_of(tmp_path: Path) -> Callable[[Path, Callable[[], object]], list[Path]]:
    """Gives what a kill leaves: copies of a folder before each file operation of a change in it.

    The last copy is of the finished change. `work` is neither watched nor copied.
    """

    def moments(folder: Path, change: Callable[[], object]) -> list[Path]:
        taken: list[Path] = []
        watching = [True]

        def take() -> None:
            watching[0] = False
            taken.append(tmp_path / "moments" / str(len(taken)))
            shutil.copytree(folder, taken[-1], copy_function=_copy, ignore=_ignore_work)
            watching[0] = True

        def watch(event: str, args: tuple[Any, ...]) -> None:
            if watching[0] and event in FILE_OPERATIONS and _is_in(folder, str(args[0])):
                take()

        sys.addaudithook(watch)
        change()
        take()
        watching[0] = False  # an audit hook cannot be removed
        return taken

    return moments


def _is_in(folder: Path, path: str) -> bool:
    return path.startswith(f"{folder}/") and not path.startswith(f"{folder}/work")


def _ignore_work(folder: str, names: list[str]) -> set[str]:
    return {"work"} & set(names)


def _copy(source: str, to: str) -> None:
    """Large files are linked: those that a moment can read are never written in place."""
    (shutil.copy2 if Path(source).stat().st_size < SMALL_BYTES else os.link)(source, to)
