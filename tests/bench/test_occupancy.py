"""What an engine did meanwhile is looked at again and again, in an engine's Python of any version."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from bench import counters, occupancy


class Before311(Exception):
    """What `asyncio.wait_for` raises before 3.11."""


async def wait_for(waiting: object, seconds: float) -> None:
    """As it was."""
    task = asyncio.ensure_future(waiting)  # type: ignore[call-overload]
    if not (await asyncio.wait([task], timeout=seconds))[0]:
        task.cancel()
        raise Before311


@pytest.mark.parametrize("before_311", [False, True])
def test_an_engine_is_looked_at_until_the_end_and_a_look_that_fails_is_left_out(
    before_311: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occupancy, "LOOK_SECONDS", 0.01)
    looks, enough = 0, asyncio.Event()

    async def look() -> counters.Counts:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise OSError
        if looks == 6:
            enough.set()
        return counters.Counts(0.0, float(looks), 0.0, 0.0, 7.0, 1.0, 0.0, 0.0)

    async def run() -> occupancy.Load:
        async with occupancy.watched(look) as load:
            await enough.wait()
        return load

    if before_311:
        theirs = SimpleNamespace(
            Event=asyncio.Event, create_task=asyncio.create_task, wait_for=wait_for, TimeoutError=Before311
        )
        monkeypatch.setattr(occupancy, "asyncio", theirs)
    load = asyncio.run(run())
    assert load.running == [7.0] * (looks - 3)  # without that before, that after, and that which failed
    assert load.answered == looks - 1
