"""What tests of a pool's host share: how a pool stands, and a host that stands still in a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from faults.house import House
from worker.engines import ended

from penstock_worker.engine.process.guard import Process

HOST: Final = "host-1"
LATENCY_SECONDS: Final = 0.1
SETTINGS: Final = {
    "lease_seconds": "3",
    "beat_seconds": "0.5",
    "tick_seconds": "0.5",
    "worker_gone_seconds": "4",
    "flush_seconds": "0.2",
    "slice_lines": "10",
    "close_grace_seconds": "1",
    "poll_seconds": "1",
    "pool_look_seconds": "0.2",
}
TERMS: Final = {"awake": 1, "linger_seconds": 0.0, "least_quantum_seconds": 1.0, "share_lost": 0.5}
"""Tests switch all the time: with a tenth of an hour lost, who is idle would stay a quantum."""
STEPS: Final = ("decided", "leaving", "stopping", "stopped", "waking", "probing", "awake")
"""The failpoints of a switch."""


def arguments(journal: Path, *more: str) -> list[str]:
    """Of an echo engine that takes its time."""
    return [f"--journal={journal}", "--max-num-seqs=8", f"--latency-ms={LATENCY_SECONDS * 1000:g}", *more]


def decisions(house: House) -> list[tuple[Any, ...]]:
    """Who left and who came, how that ended, and what went wrong, oldest first."""
    return house.rows("select leaves, comes, state, error from pool_decisions order by id")


def standing(house: House) -> dict[str, str]:
    """How the versions are on the host that runs now."""
    return dict(house.rows("select queue, state from pool_residents where host = %s", house.holder(HOST)))


def awake(house: House, queue: str, seconds: float = 90.0) -> None:
    """Wait until this version is awake."""
    house.until(lambda: standing(house).get(queue) == "awake", f"{queue} is awake", seconds)


def passing(step: str, action: str) -> str:
    """A failpoint in the switch that is a host's second: its first fills a free place, where nobody has to stop."""
    return f"pool.{step}={action}" + ("" if step == "stopping" else "@2")


def stands_still(house: House) -> None:
    """Wait until the host is stopped at its failpoint."""
    status = Path(f"/proc/{house.pid(HOST)}/status")
    house.until(lambda: "State:\tT" in status.read_text(), "the host stands still", 120)


def gone(processes: list[Process], seconds: float = 20.0) -> None:
    """Each of these has ended, or ends soon."""
    for process in processes:
        assert ended(process, seconds), f"{process} outlives its host"
