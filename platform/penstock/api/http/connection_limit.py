"""The connection limit: one API process has so many connections; those that ask for nothing make room for new ones.

A connection waits while no request of it is under way: it is new, its head is not whole, or it is kept for another.
Who waited longest goes first. If all are at work, who comes is told 503, and to try again.
"""

from __future__ import annotations

import resource
from typing import Final, Protocol

import structlog

from penstock.api.http import errors
from penstock.domain.api_errors import Unavailable

log = structlog.get_logger()

_SPARE: Final = 1.05
"""Of the limit, as many more are held for a moment to be told that there is no room; beyond it they are just cut."""
_FILES_BESIDE: Final = 200
"""Files that are no client's connections: the database's, the blobs', the log."""
_FILES_EACH: Final = 2
"""A waiting call has a connection to its ingress too."""
_RETRY_AFTER_SECONDS: Final = 5


class WaitingConnection(Protocol):
    """A connection that may be closed while it waits."""

    def make_room(self) -> None:
        """Close it; no request of it is under way."""


class ConnectionLimit:
    """All connections of one process, on its one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._waiting: dict[WaitingConnection, None] = {}
        """The one that waits longest first."""

    def waits(self, connection: WaitingConnection) -> None:
        """No request of it is under way from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def works(self, connection: WaitingConnection) -> None:
        """A request of it is under way, or it is gone."""
        self._waiting.pop(connection, None)

    def admits(self, held: int) -> bool:
        """Whether one more has room beside `held` others; closes the one that waits longest if there is none."""
        if held < self.most:
            return True
        if not self._waiting:
            return False
        longest = next(iter(self._waiting))
        del self._waiting[longest]
        longest.make_room()
        return True

    def hears(self, held: int) -> bool:
        """Whether one that is not admitted is told so."""
        return held < self.most * _SPARE + 1


def refusal() -> bytes:
    """What a connection is told for which there is no room."""
    message = "This server has as many connections as it can hold."
    error = Unavailable(message, retry_after_seconds=_RETRY_AFTER_SECONDS, code="too_many_connections")
    told = errors.answer(error)
    told.headers["x-content-type-options"] = "nosniff"
    told.headers["connection"] = "close"
    head = b"".join(b"%b: %b\r\n" % header for header in told.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n%b\r\n%b" % (head, bytes(told.body))


def within_files(most: int) -> int:
    """The limit, or less if this process may not open as many files; it is given all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most * _FILES_EACH + _FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return most
    possible = max(1, (soft - _FILES_BESIDE) // _FILES_EACH)
    log.warning("fewer_connections", most=possible, wanted=most, reason=f"this process may open {soft} files")
    return possible
