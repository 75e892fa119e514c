"""A slice's lines reach the engine with their lane's rank and their tenant's salt, and each becomes one record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from worker.engines import echo_engine

from penstock.domain.work.lane import Lane
from penstock.domain.work.rank import OF_LANE
from penstock.domain.work.slice import Claim
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip, now
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.line_request import LineTries
from penstock_worker.slices.reuse import each

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def supervisor(short_dir: Path) -> Iterator[Supervisor]:
    with echo_engine(short_dir / "asking") as supervisor:
        yield supervisor


@asynccontextmanager
async def recorder(socket: Path, seen: list[dict]) -> AsyncIterator[None]:
    """An engine that notes what it is sent."""

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.json())
        return web.json_response({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    app = web.Application()
    app.router.add_post(CHAT, answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    yield
    await runner.cleanup()


@asynccontextmanager
async def faulty(socket: Path, faults: Sequence[str], seen: list[str], seconds: float = 0.0) -> AsyncIterator[None]:
    """An engine that fails in a row, each after a while: a status (and a body), or `break` for a cut connection."""

    async def answer(request: web.Request) -> web.Response:
        fault = faults[len(seen) % len(faults)]
        seen.append(fault)
        await asyncio.sleep(seconds)
        if fault == "break":
            assert request.transport
            request.transport.abort()
            return web.Response()
        status, _, body = fault.partition(" ")
        error = body or json.dumps({"error": {"message": fault, "code": int(status)}})
        kind, soon = "application/json", {"retry-after": "0.01"}
        return web.Response(text=error, status=int(status), content_type=kind, headers=soon)

    app = web.Application()
    app.router.add_post(CHAT, answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    yield
    await runner.cleanup()


def claim(lane: Lane, tenant: str) -> Claim:
    return Claim(
        slice=1,
        lease=1,
        batch="batch_1",
        tenant=tenant,
        endpoint=CHAT,
        model="m",
        lane=lane,
        deadline=datetime(2030, 1, 1, tzinfo=UTC),
        tokens=1,
        plan_key=None,
        plan_offset=0,
        plan_bytes=0,
        inline=b"",
        lines=3,
        first_line=1,
        last_line=3,
        recorded=frozenset(),
        suspects={},
        crashes=0,
    )


def collected(feed: LineFeed, grip: Grip) -> list[Record]:
    """All that comes back."""
    records: list[Record] = []
    while not feed.done:
        assert grip.news.wait(20)
        grip.news.clear()
        records += feed.collect()
    assert feed.error is None
    return records


def ask(
    supervisor: Supervisor, socket: Path, made: Claim, bodies: list[bytes], others: int = 0
) -> tuple[list[dict], list[Record]]:
    """What the engine saw, in any order, and what was recorded, by line; `others` are lines of somebody else."""
    seen: list[dict] = []
    grip = Grip(1, now() + 60)
    with LoopThread() as loop, loop.living(recorder(socket, seen)), loop.living(client := EngineClient(socket=socket)):
        engine = EngineContext(client, Gate(2, 3, overtakers=1), supervisor, loop, Settings())
        other = Ticket(OF_LANE[made.lane], "somebody else")
        for _ in range(others):
            loop.run(engine.gate.admit(other)).result(5)
        lines = [Line(number, f"c{number}", CHAT, body) for number, body in enumerate(bodies, 1)]
        feed = LineFeed(engine, made, each(lines), grip)
        records = collected(feed, grip)
        assert engine.gate.in_flight == others
    return seen, sorted(records, key=lambda record: record.number)


def test_a_line_that_passes_another_tenants_at_the_gate_goes_ahead_of_them_in_the_engine(
    supervisor: Supervisor, short_dir: Path
) -> None:
    bodies = [b'{"model":"m"}'] * 3
    seen, _ = ask(supervisor, short_dir / "ahead.sock", claim(Lane.STANDARD, "a"), bodies, others=2)
    assert [said["priority"] for said in seen] == [5, 5, 5]
    seen, _ = ask(supervisor, short_dir / "alone.sock", claim(Lane.STANDARD, "a"), bodies)
    assert [said["priority"] for said in seen] == [6, 6, 6]


@pytest.mark.parametrize(("lane", "priority"), [(Lane.PRIORITY, 4), (Lane.STANDARD, 6), (Lane.FLEX, 8)])
def test_each_line_carries_its_lanes_priority_whatever_it_says_itself(
    supervisor: Supervisor, short_dir: Path, lane: Lane, priority: int
) -> None:
    bodies = [b'{"model":"m","seed":1}', b'{"model":"m","priority":-9,"service_tier":"priority","seed":2}']
    seen, records = ask(supervisor, short_dir / f"{lane}.sock", claim(lane, "a"), bodies)
    assert [record.failed for record in records] == [False, False]
    assert {said["seed"]: said["priority"] for said in seen} == {1: priority, 2: priority}
    assert not any("service_tier" in said for said in seen)


def test_tenants_caches_are_apart(supervisor: Supervisor, short_dir: Path) -> None:
    body = b'{"model":"m"}'
    one, _ = ask(supervisor, short_dir / "one.sock", claim(Lane.FLEX, "a"), [body, body])
    two, _ = ask(supervisor, short_dir / "two.sock", claim(Lane.FLEX, "b"), [body])
    assert one[0]["cache_salt"] == one[1]["cache_salt"] != two[0]["cache_salt"]


def test_a_line_that_cannot_be_sent_is_refused_and_the_others_are_asked(
    supervisor: Supervisor, short_dir: Path
) -> None:
    bodies = [b'{"model":"m","cache_salt":"a/b"}', b'{"model":"m"}']
    seen, records = ask(supervisor, short_dir / "bad.sock", claim(Lane.FLEX, "a"), bodies)
    assert len(seen) == 1
    assert [record.failed for record in records] == [True, False]
    refused = json.loads(records[0].line)["response"]
    assert refused["status_code"] == 400
    assert "cache_salt" in refused["body"]["error"]["message"]


def fail(
    supervisor: Supervisor, socket: Path, faults: Sequence[str], seconds: float, **settings: Any
) -> tuple[list[str], Any]:
    """What the engine did, try by try, and the output line of the line that met it."""
    seen: list[str] = []
    grip = Grip(1, now() + 60)
    client = EngineClient(socket=socket, generation=lambda: supervisor.generation)
    with LoopThread() as loop, loop.living(faulty(socket, faults, seen, seconds)), loop.living(client):
        engine = EngineContext(client, Gate(1), supervisor, loop, Settings(**settings))
        feed = LineFeed(engine, claim(Lane.FLEX, "a"), each([Line(1, "c1", CHAT, b'{"model":"m"}')]), grip)
        [record] = collected(feed, grip)
        assert engine.gate.in_flight == 0
    return seen, json.loads(record.line)


@pytest.mark.parametrize("tries", [1, 3, 4])
@pytest.mark.parametrize("faults", [("break", "503"), ("503", "break"), ("429", "break", "500"), ("break",), ("500",)])
def test_however_a_line_fails_it_is_asked_as_often_in_all_as_the_settings_say(
    supervisor: Supervisor, short_dir: Path, faults: Sequence[str], tries: int
) -> None:
    seen, told = fail(supervisor, short_dir / "faulty.sock", faults, 0.0, line_tries=tries)
    assert seen == [faults[number % len(faults)] for number in range(tries)]
    if seen[-1] == "break":
        assert told["error"]["code"] == "engine_error"
    else:
        assert told["response"]["status_code"] == int(seen[-1])


@pytest.mark.parametrize(
    ("fault", "status", "code", "message"),
    [
        ('404 {"detail": "Not Found"}', 404, "unsupported_endpoint", "The model 'm' has no /v1/chat/completions."),
        ("501 {}", 404, "unsupported_endpoint", "The model 'm' has no /v1/chat/completions."),
        ("400", 400, None, "400"),
        ('422 {"detail": "odd"}', 422, None, "odd"),
        ("401", 500, "internal_error", "The engine of 'm' does not take requests from this platform."),
        ("502 Bad Gateway", 502, "not_json", "Bad Gateway"),
    ],
)
def test_a_refused_line_is_told_what_a_waiting_call_would_be(
    supervisor: Supervisor, short_dir: Path, fault: str, status: int, code: str | None, message: str
) -> None:
    _, told = fail(supervisor, short_dir / "refused.sock", [fault], 0.0, line_tries=1)
    error = told["response"]["body"]["error"]
    assert told["error"] is None
    assert (told["response"]["status_code"], error["code"], error["message"]) == (status, code, message)
    assert set(error) == {"message", "type", "param", "code"}


def test_the_time_in_the_engine_is_counted_over_all_tries_however_they_failed(
    supervisor: Supervisor, short_dir: Path
) -> None:
    faults, timeout = ("break", "503"), 3.0
    seen, told = fail(supervisor, short_dir / "slow.sock", faults, 1.2, line_tries=9, line_timeout_seconds=timeout)
    assert seen == ["break", "503", "break"]
    assert told["error"]["code"] == "request_timeout"


def test_a_try_has_the_seconds_that_those_before_it_left() -> None:
    times = iter([0.0, 2.0, 10.0, 15.0, 20.0, 23.0])
    tries = LineTries(3, 10.0, clock=lambda: next(times))
    had = []
    while tries.left:
        with tries.one() as seconds:
            had.append(seconds)
    assert had == [10.0, 8.0, 3.0]
    assert (tries.spent_seconds, tries.out_of_time) == (10.0, True)
