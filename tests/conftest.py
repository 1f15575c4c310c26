"""What holds for every test: one thread, no window, no network."""

import os
import socket
from collections.abc import Generator

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
