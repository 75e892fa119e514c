"""Process records: which processes an engine has, on disk, so that the next start can kill what a dead worker left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_worker.engine.process.guard import Process, kill, kill_session, look_up


class InUse(RuntimeError):
    """Another living worker has its engine in this runtime folder."""


@dataclass(frozen=True)
class ProcessRecord:
    """One engine's session and the processes seen in it. Start times count from boot, so the boot is part of it."""

    boot: str
    session: int
    processes: tuple[Process, ...]


def boot() -> str:
    """This boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(path: Path, session: int, processes: Iterable[Process]) -> None:
    """Replace the record in one step."""
    body = {
        "boot": boot(),
        "session": session,
        "processes": [[process.pid, process.started_ticks] for process in processes],
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(body))
    os.replace(fresh, path)


def read(path: Path) -> ProcessRecord | None:
    """The record, or None if there is none that can be read."""
    try:
        body = json.loads(path.read_text())
        processes = tuple(Process(int(pid), int(ticks)) for pid, ticks in body["processes"])
        return ProcessRecord(str(body["boot"]), int(body["session"]), processes)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kill_leftovers(path: Path) -> int:
    """Kill what is left of a recorded engine and forget the record; the result is how many were verified alive.

    A process counts as ours only with pid and start time of this boot. One that does proves that its session is
    still the recorded one (the kernel gives a pid out again only once no session uses it), so the session goes.
    """
    record = read(path)
    if record is None or record.boot != boot():
        path.unlink(missing_ok=True)
        return 0
    ours = [now for then in record.processes if (now := look_up(then.pid)) and now.started_ticks == then.started_ticks]
    if any(process.session == record.session for process in ours):
        kill_session(record.session)
    for process in ours:
        kill(process)
    path.unlink(missing_ok=True)
    return len(ours)


@contextlib.contextmanager
def sole_owner(path: Path) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go however we die; InUse if another holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InUse(f"Another worker has its engine in {path.parent}.") from error
        yield
