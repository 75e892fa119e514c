"""Member set: the versions that this host has started, by queue: who there is, and who of them sleeps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import structlog

from penstock_worker.engine.process import process_record
from penstock_worker.pool.member import Member
from penstock_worker.pool.member_launch import MemberLaunch, mark

log = structlog.get_logger()


class MemberSet:
    """From `with` to its end, after which none of them is left."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self.asleep: dict[str, int | None] = {}
        """Queues of those who sleep, with the engine that sleeps; who has slept longest is first."""

    def __enter__(self) -> MemberSet:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def end_all(self) -> None:
        """See the last of all of them gone."""
        for queue in list(self._members):
            self.end(queue)

    def find(self, queue: str | None) -> Member | None:
        """The member of a version, if it has one here."""
        return self._members.get(queue) if queue else None

    def of(self, queue: str) -> Member:
        """The same of one that is here."""
        return self._members[queue]

    def add(self, launch: MemberLaunch) -> Member:
        """One that is about to be started, in place of one that has ended."""
        self.end(launch.queue)
        self._members[launch.queue] = member = Member(launch)
        return member

    def end(self, queue: str) -> None:
        """See the last of a member gone, and forget it."""
        self.asleep.pop(queue, None)
        if member := self._members.pop(queue, None):
            member.end()

    @property
    def lines(self) -> list[socket.socket]:
        """Readable when there is news of one."""
        return [member.line for member in self._members.values() if member.line is not None]

    def tend(self) -> None:
        """Look at each once.

        An engine that dies asleep is started again by its own worker, awake, and there is no room for it: its member is
        killed at once, also in the middle of another's switch.
        """
        for queue, member in self._members.items():
            member.tend()
            if queue in self.asleep and member.runs and member.engine != self.asleep[queue]:
                member.kill()

    def terminate(self) -> None:
        """SIGTERM to all."""
        for member in self._members.values():
            member.terminate()


def kill_leftovers(pool: str, runtime_dir: Path) -> int:
    """Kill what an earlier host of this pool left in this runtime folder; how many processes were alive."""
    found = 0
    for folder in runtime_dir.glob(f"{mark(pool)}?????"):
        for record in [folder / "member.json", *folder.glob("*/engine.json")]:
            found += process_record.kill_leftovers(record)
    if found:
        log.warning("killed_leftovers", pool=pool, processes=found)
    return found
