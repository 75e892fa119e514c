"""The proxy breaks connections in the ways that it says, and only then."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faults.proxy import Proxy


class _Server:
    """Says back what it hears, and remembers it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "echo.sock"
        self.heard: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listener.accept()[0],), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(4096):
                self.heard.append(data)
                connection.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def server(short_dir: Path) -> Iterator[_Server]:
    found = _Server(short_dir)
    yield found
    found.close()
    found.path.unlink()


@pytest.fixture
def network(server: _Server) -> Iterator[Proxy]:
    with Proxy(server.path) as proxy:
        yield proxy


def _connect(network: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), timeout=5)


def _say(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(4096)


def test_what_is_said_is_answered(network: Proxy) -> None:
    with _connect(network) as one, _connect(network) as two:
        assert [_say(one, b"a"), _say(two, b"b"), _say(one, b"c")] == [b"a", b"b", b"c"]
        assert network.connections == 2


def test_a_cut_resets_connections_and_refuses_new_ones_until_it_heals(network: Proxy) -> None:
    with _connect(network) as one:
        assert _say(one, b"a") == b"a"
        network.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        with pytest.raises(ConnectionRefusedError):
            _connect(network)
    network.heal()
    with _connect(network) as two:
        assert _say(two, b"b") == b"b"


def test_a_hang_accepts_and_holds_everything_until_it_heals(network: Proxy, server: _Server) -> None:
    with _connect(network) as one:
        assert _say(one, b"a") == b"a"
        network.hang()
        with _connect(network) as two:
            for connection in (one, two):
                connection.settimeout(0.2)
                connection.sendall(b"b")
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            assert server.heard == [b"a"]
            network.heal()
            for connection in (one, two):
                connection.settimeout(5)
                assert connection.recv(1) == b"b"


def test_a_peer_that_vanished_does_not_even_acknowledge(network: Proxy) -> None:
    with _connect(network) as one:
        assert _say(one, b"a") == b"a"
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        network.vanish()
        one.sendall(b"b")
        with pytest.raises(TimeoutError, match="110"):  # ETIMEDOUT of the kernel, not the socket's own timeout
            one.recv(1)
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", network.port), timeout=0.5)
    network.heal()
    with _connect(network) as two:
        assert _say(two, b"c") == b"c"


def test_a_lost_answer_arrived_as_a_question(network: Proxy, server: _Server) -> None:
    network.lose_answers(to=b"COMMIT", times=1)
    with _connect(network) as one:
        assert _say(one, b"SELECT") == b"SELECT"
        with pytest.raises(ConnectionResetError):
            _say(one, b"COMMIT")
    assert server.heard == [b"SELECT", b"COMMIT"]
    assert network.lost == 1
    with _connect(network) as two:
        assert _say(two, b"COMMIT") == b"COMMIT", "only one is lost"


def test_each_second_answer_may_be_lost(network: Proxy, server: _Server) -> None:
    network.lose_answers(to=b"COMMIT", every=2)
    with _connect(network) as one:
        assert _say(one, b"COMMIT") == b"COMMIT"
        with pytest.raises(ConnectionResetError):
            _say(one, b"COMMIT")
    assert network.lost == 1


def test_only_the_answer_after_a_certain_question_may_be_lost(network: Proxy) -> None:
    network.lose_answers(to=b"COMMIT", after=b"INSERT")
    with _connect(network) as one, _connect(network) as two:
        assert [_say(one, b"COMMIT"), _say(one, b"INSERT"), _say(two, b"COMMIT")] == [b"COMMIT", b"INSERT", b"COMMIT"]
        with pytest.raises(ConnectionResetError):
            _say(one, b"COMMIT")


def test_a_delay_takes_its_time_each_way(network: Proxy) -> None:
    with _connect(network) as one:
        network.delay(0.1)
        began = time.monotonic()
        assert _say(one, b"a") == b"a"
        assert 0.2 <= time.monotonic() - began < 2


def test_a_server_that_is_gone_resets_its_clients(short_dir: Path) -> None:
    with Proxy(short_dir / "nobody.sock") as network, pytest.raises(ConnectionResetError), _connect(network) as one:
        one.recv(1)
