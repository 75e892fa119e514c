"""A house's pool: versions that take turns on its hosts, and what belongs to whom there while it works.

    with House(url, redis_url, folder, gpus=0, pool=HousePool({"left": ["--max-num-seqs=8"], "right": []})) as house:
        house_pool.kill_members(house, "host-1")

Hosts are named `host-1` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from penstock.domain.models.version import Definition
from penstock.service.core.transaction import Transaction
from penstock.service.models import versions
from penstock.service.pools import pools
from penstock_worker.engine.process import process_record
from penstock_worker.engine.process.guard import Process, kill, look_up

if TYPE_CHECKING:
    from faults.house import House

POOL: Final = "p"
_ECHO: Final = "penstock_worker.engine.echo.echo_server"


@dataclass(frozen=True)
class HousePool:
    """The pool as it is made before anything starts; each version may be woken by a call."""

    members: Mapping[str, Sequence[str] | Definition]
    """By model: an echo engine's arguments, or what else the version is."""
    terms: Mapping[str, Any] = field(default_factory=dict)
    hosts: int = 1

    def make(self, tx: Transaction) -> None:
        """Add the versions, and the pool of them."""
        for model, given in self.members.items():
            made = given if isinstance(given, Definition) else Definition("echo", "echo", tuple(given))
            versions.add(tx, model, made)
        wanted = [pools.WantedMember(f"{model}@v1", on_demand=True) for model in self.members]
        pools.create(tx, POOL, wanted, terms=self.terms)


def members(house: House, host: str) -> dict[str, list[Process]]:
    """The processes of each member and its engine that are on record, by folder."""
    found = {}
    for record in house.runtime(host).glob("*/member.json"):
        read = process_record.read(record)
        found[record.parent.name] = list(read.processes) if read else []
    return found


def every_process(house: House, host: str) -> list[Process]:
    """All of all members."""
    return [process for each in members(house, host).values() for process in each]


def workers(house: House, host: str) -> list[Process]:
    """Each member's worker that lives, without its guard."""
    return _led(house.runtime(host).glob("*/member.json"))


def engines(house: House, host: str) -> list[Process]:
    """Each member's engine that lives, awake or asleep, without its guard."""
    return _led(house.runtime(host).glob("*/*/engine.json"))


def kill_members(house: House, host: str) -> int:
    """`kill -9` of each member's worker; how many."""
    return sum(kill(process) for process in workers(house, host))


def kill_engines(house: House, host: str) -> int:
    """`kill -9` of each engine alone; how many."""
    return sum(kill(process) for process in engines(house, host))


def count_engines(house: House) -> dict[str, int]:
    """How many echo engines live on each host, on record or not."""
    return {name: sum(_is_engine(process) for process in house.left_by(name)) for name in house.named("host")}


def _is_engine(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return _ECHO in command and not any(part.endswith("guard.py") for part in command)


def _led(records: Iterable[Path]) -> list[Process]:
    """What the guards of these records started: their children."""
    found = []
    for read in map(process_record.read, records):
        for then in read.processes if read else ():
            now = look_up(then.pid)
            if read and now and now.started_ticks == then.started_ticks and now.parent == read.session:
                found.append(now)
    return found
