"""A test without the network mark cannot reach another machine."""

import socket

import pytest


def test_a_connection_to_another_machine_is_refused() -> None:
    with socket.socket() as here, pytest.raises(PermissionError, match="network mark"):
        here.connect(("192.0.2.1", 80))  # an address reserved for documentation


def test_a_connection_to_this_machine_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as here:
        here.connect(server.getsockname())
        assert here.getpeername() == server.getsockname()
