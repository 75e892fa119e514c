"""One of each: a house with a process of every kind, which tests kill, arm with failpoints and revive."""

from __future__ import annotations

from typing import Final

from faults.house import House

EVERYONE: Final = ("api-1", "keeper-1", "io-1", "gpu-1")


def revive(house: House) -> None:
    """Start who is dead, and wait until everybody works."""
    for name in EVERYONE:
        if not house.lives(name):
            house.start(name)
    house.wait_until_ready()


def arm(house: House, name: str, point: str) -> None:
    """Start a process anew with a failpoint."""
    house.kill(name)
    house.start(name, failpoints=point)
    house.wait_until_ready()
