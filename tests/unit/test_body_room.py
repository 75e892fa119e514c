"""Room for bodies: one tenant's large ones leave half of it to the others, and small ones always find some."""

from __future__ import annotations

import pytest

from penstock.api.http.body import Room
from penstock.domain.api_errors import TooMany, Unavailable

LARGE = 1_000_000


def test_a_tenant_has_half_of_the_room_and_the_others_the_rest() -> None:
    room = Room(8 * LARGE)
    held = [room.held("a") for _ in range(5)]
    bodies = [one.__enter__() for one in held]
    for body in bodies[:4]:
        room.grow(body, LARGE)
    with pytest.raises(TooMany):
        room.grow(bodies[4], LARGE)
    room.grow(bodies[4], Room.SMALL_BYTES)
    with room.held("b") as other:
        room.grow(other, 2 * LARGE)
        room.grow(other, 4 * LARGE)
        with room.held("c") as third, pytest.raises(Unavailable):
            room.grow(third, LARGE)
    held[0].__exit__(None, None, None)
    room.grow(bodies[4], LARGE)


def test_what_was_held_is_given_back_whole() -> None:
    room = Room(4 * LARGE)
    for _ in range(50):
        with room.held("a") as body:
            for size in range(0, 2 * LARGE + 1, LARGE // 3):
                room.grow(body, size)
            room.grow(body, 2 * LARGE)
