"""All looks at some surroundings, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from penstock.doctor import database, machine, servers
from penstock.doctor.finding import Look, skipped
from penstock.doctor.surroundings import Surroundings

_NOT_RUNNING: Final = "`penstock up` does not run on this folder"


def of(around: Surroundings) -> Mapping[str, Look]:
    """By name; servers of a data folder are looked at while `penstock up` runs them."""
    looks: dict[str, Look] = {"python": machine.look_at_python, "engine": partial(machine.look_at_engine, around)}
    if around.has_servers:
        looks["postgres"] = partial(database.look, around)
        looks["redis"] = partial(servers.look_at_redis, around)
    else:
        looks["postgres"] = lambda: database.without_database(around, _NOT_RUNNING)
        looks["redis"] = lambda: [skipped("redis", _NOT_RUNNING)]
    looks["blobs"] = partial(servers.look_at_blobs, around)
    looks["disk"] = partial(machine.look_at_disks, around)
    looks["port"] = partial(machine.look_at_ports, around)
    looks["open files"] = partial(machine.look_at_files, around)
    return looks
