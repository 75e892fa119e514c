"""Ports: the free one that is given is nobody's by chance, and one that can't be used is a clear line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from penstock.stack import ports
from penstock.stack.problem import Problem


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=rf"^The API can't use 127\.0\.0\.1:{port} \(.*in use\): choose .*--port\.$"):
            ports.check_port("127.0.0.1", port, "The API", "--port")
        assert ports.preferred_port(port) != port


def test_a_port_out_of_range_and_a_host_that_is_unknown_are_clear_lines_too() -> None:
    with pytest.raises(Problem, match="choose another with --port"):
        ports.check_port("127.0.0.1", 70_000, "The API", "--port")
    with pytest.raises(Problem, match="choose another with --port"):
        ports.check_port("no-such-host.invalid", 8000, "The API", "--port")


def test_a_free_port_is_none_of_those_that_the_system_hands_out() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    given = [ports.free_port() for _ in range(50)]
    assert len(set(given)) > 40
    for port in given:
        assert 10_240 <= port < low
        ports.check_port("127.0.0.1", port, "The API", "--port")


def test_without_room_below_those_a_free_port_is_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text("1024\t65535\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", tmp_path / "range")
    ports.check_port("127.0.0.1", ports.free_port(), "The API", "--port")
