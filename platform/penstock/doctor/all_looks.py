"""All looks at one place, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from penstock.doctor import database, machine, servers
from penstock.doctor.finding import Look, skipped
from penstock.doctor.place import Place

_NOT_RUNNING: Final = "`penstock up` does not run on this folder"


def of(place: Place) -> Mapping[str, Look]:
    """By name; servers of a data folder are looked at while `penstock up` runs them."""
    looks: dict[str, Look] = {"python": machine.look_at_python, "engine": partial(machine.look_at_engine, place)}
    if place.has_servers:
        looks["postgres"] = partial(database.look, place)
        looks["redis"] = partial(servers.look_at_redis, place)
    else:
        looks["postgres"] = lambda: database.without_database(place, _NOT_RUNNING)
        looks["redis"] = lambda: [skipped("redis", _NOT_RUNNING)]
    looks["blobs"] = partial(servers.look_at_blobs, place)
    looks["disk"] = partial(machine.look_at_disks, place)
    looks["port"] = partial(machine.look_at_ports, place)
    looks["open files"] = partial(machine.look_at_files, place)
    return looks
