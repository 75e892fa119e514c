"""A streamed answer comes as the engine sends it, costs no memory, and ends in the engine when its taker leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from worker.engines import echo_launch, wait_ready

from penstock_worker.engine.client import EngineClient, EngineGone, EngineTimeout
from penstock_worker.engine.process.supervisor import Supervisor

CHAT = "/v1/chat/completions"
Test = Callable[[EngineClient], Awaitable[None]]


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[Supervisor]:
    folder = short_dir / "stream"
    launch = echo_launch(folder, "--itl-ms=5")
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        yield supervisor


def run(socket: Path, test: Test) -> None:
    async def inside() -> None:
        async with EngineClient(socket=socket) as client:
            await asyncio.wait_for(test(client), 30)

    asyncio.run(inside())


def chat(prompt: str, stream: bool = True) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": prompt}], "stream": stream}).encode()


async def take(client: EngineClient, body: bytes, timeout_seconds: float, into: list[bytes]) -> None:
    async with client.open(CHAT, body, timeout_seconds, "call") as stream:
        async for chunk in stream.chunks:
            into.append(chunk)


async def aborted(client: EngineClient) -> int:
    page = await client.metrics()
    return int(float(next(row.split()[-1] for row in page.splitlines() if row.startswith("echo:requests_aborted"))))


def test_the_bytes_come_as_they_are_sent_and_the_connection_is_used_again(engine: Supervisor) -> None:
    async def test(client: EngineClient) -> None:
        for _ in range(2):
            async with client.open(CHAT, chat("hi [[tokens 200]]"), 20, "call-1") as stream:
                assert stream.status == 200
                assert stream.headers["content-type"].startswith("text/event-stream")
                chunks = [chunk async for chunk in stream.chunks]
            assert len(chunks) > 5
            whole = b"".join(chunks)
            assert whole.endswith(b"data: [DONE]\n\n")
            assert b"chatcmpl-call-1" in whole
        assert len(client._connections) == 1

    run(engine.launch.socket, test)


def test_a_refusal_is_an_answer(engine: Supervisor) -> None:
    async def test(client: EngineClient) -> None:
        async with client.open(CHAT, chat("[[status 429 times 1 after 3]]"), 20, "call-2") as stream:
            assert (stream.status, stream.headers["retry-after"]) == (429, "3")
            assert b"The script says 429" in b"".join([chunk async for chunk in stream.chunks])

    run(engine.launch.socket, test)


@pytest.mark.parametrize("how", ["leaves", "is cancelled", "breaks"])
def test_a_taker_that_leaves_early_ends_the_request_in_the_engine(engine: Supervisor, how: str) -> None:
    async def test(client: EngineClient) -> None:
        before = await aborted(client)
        taken = asyncio.Event()

        async def leave() -> None:
            async with client.open(CHAT, chat("hi [[tokens 100000]]"), 60, "call-3") as stream:
                async for _ in stream.chunks:
                    taken.set()
                    if how == "leaves":
                        return
                    if how == "breaks":
                        raise ConnectionResetError("the caller's own connection")
                    await asyncio.Event().wait()

        taking = asyncio.create_task(leave())
        await taken.wait()
        if how == "is cancelled":
            taking.cancel()
        wanted = {"leaves": type(None), "is cancelled": asyncio.CancelledError, "breaks": ConnectionResetError}[how]
        (ended,) = await asyncio.gather(taking, return_exceptions=True)
        assert isinstance(ended, wanted), "what the taker raises is not the engine's"
        while await aborted(client) == before:
            pass

    run(engine.launch.socket, test)


def test_an_answer_that_breaks_off_is_an_engine_gone_after_what_came(engine: Supervisor) -> None:
    async def test(client: EngineClient) -> None:
        chunks: list[bytes] = []
        with pytest.raises(EngineGone) as gone:
            await take(client, chat("hi [[tokens 40]] [[break-after 3]]"), 20, chunks)
        assert b"".join(chunks).count(b"data: ") <= 3
        assert (gone.value.sent, gone.value.generation) == (True, 1)

    run(engine.launch.socket, test)


def test_a_connection_that_breaks_before_the_head_is_gone_and_sent(engine: Supervisor) -> None:
    async def test(client: EngineClient) -> None:
        with pytest.raises(EngineGone) as gone:
            await take(client, chat("[[break]]"), 20, [])
        assert gone.value.sent

    run(engine.launch.socket, test)


def test_no_engine_is_gone_and_not_sent(short_dir: Path) -> None:
    async def test(client: EngineClient) -> None:
        with pytest.raises(EngineGone) as gone:
            await take(client, b"{}", 20, [])
        assert not gone.value.sent

    run(short_dir / "nobody.sock", test)


@pytest.mark.parametrize("prompt", ["[[hang]]", "hi [[tokens 40]] [[stall-after 3]]"])
def test_time_is_counted_for_the_whole_answer(engine: Supervisor, prompt: str) -> None:
    async def test(client: EngineClient) -> None:
        with pytest.raises(EngineTimeout):
            await take(client, chat(prompt), 0.3, [])

    run(engine.launch.socket, test)


def test_what_a_slow_taker_has_not_taken_waits_in_the_engine(short_dir: Path) -> None:
    """An engine that sends without end: its writes wait once buffers of fixed size are full."""
    socket = short_dir / "flood.sock"

    async def test() -> None:
        sent, stuck = 0, asyncio.Event()

        async def flood(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                try:
                    await asyncio.wait_for(response.write(b"x" * 65_536), 0.5)
                except TimeoutError:
                    stuck.set()
                    await asyncio.Event().wait()
                sent += 65_536
                assert sent < 16 * 1_048_576, "nobody took these bytes"

        app = web.Application()
        app.router.add_post(CHAT, flood)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        async with (
            EngineClient(socket=socket) as client,
            client.open(CHAT, b"{}", 20, "call-8") as stream,
        ):
            await anext(stream.chunks)
            await asyncio.wait_for(stuck.wait(), 15)
        await runner.cleanup()

    asyncio.run(test())
