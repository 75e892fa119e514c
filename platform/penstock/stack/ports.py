"""Ports: one that is free and stays free until its server opens it, and what is wrong with one that was asked for."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from penstock.stack.problem import Problem

# Linux hands out ports of this range to whoever connects or asks for any port, so that one of them that was free
# a moment ago may be taken before its server is up (ip(7), ip_local_port_range).
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST: Final = 10_240
_TRIES: Final = 200


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment, and that only those get who ask for this very one."""
    low = _ephemeral_low()
    for _ in range(_TRIES if low > _LOWEST else 0):
        port = random.randrange(_LOWEST, low)
        if refusal(host, port) is None:
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def preferred_port(port: int, host: str = "127.0.0.1") -> int:
    """This port if it is free, else a free one."""
    return port if refusal(host, port) is None else free_port(host)


def check_port(host: str, port: int, what: str, flag: str) -> None:
    """Raise Problem if this port can't be opened."""
    if why := refusal(host, port):
        raise Problem(f"{what} can't use {host}:{port} ({why}): choose another with {flag}.")


def refusal(host: str, port: int) -> str | None:
    """Why this port can't be opened; None if it can."""
    if not 0 < port < 65_536:
        return "it must be 1 to 65535"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _ephemeral_low() -> int:
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768  # no Linux: the others begin at 49152
