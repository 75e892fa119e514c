"""What a peer sends on a connection, byte by byte: how answers end, what breaks, and which connections are kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from penstock.wire.http_connections import Exchange, HttpConnections, NotConnected

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Said: \xc3\xa9\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"
Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The engine's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def asked(self) -> bytes:
        """Read a request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await self.reader.readexactly(length)

    async def say(self, *pieces: bytes) -> None:
        """Send bytes, each in a packet of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)


def connections(socket: Path, keepalive_seconds: float = 300.0) -> HttpConnections:
    """To whoever listens there."""
    return HttpConnections(
        lambda protocol: asyncio.get_running_loop().create_unix_connection(protocol, str(socket)),
        "engine",
        keepalive_seconds,
    )


class Engine:
    """A socket where each connection goes by a script."""

    def __init__(self, folder: Path, script: Script, keepalive_seconds: float = 300.0) -> None:
        self.socket, self._script = folder / "wire.sock", script
        self.keepalive_seconds = keepalive_seconds
        self.made = 0
        self.ended = 0

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[HttpConnections]:
        """HttpConnections to it."""
        server = await asyncio.start_unix_server(self._one, str(self.socket))
        asking = connections(self.socket, self.keepalive_seconds)
        try:
            yield asking
        finally:
            asking.close()
            server.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        try:
            await self._script(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended += 1
        finally:
            writer.close()


async def whole(asking: HttpConnections, timeout_seconds: float = 5.0, body: bytes = b"{}") -> bytes:
    """An answer's body."""
    exchange = await asking.ask("POST", "/v1/x", body, {"x-request-id": "one"}, timeout_seconds)
    try:
        return b"".join([piece async for piece in _pieces(exchange)])
    finally:
        exchange.close()


async def _pieces(exchange: Exchange) -> AsyncIterator[bytes]:
    while piece := await exchange.read():
        yield piece


def run(engine: Engine, test: Callable[[HttpConnections], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with engine.asked() as asking:
            await asyncio.wait_for(test(asking), 20)

    asyncio.run(inside())


def always(*answer: bytes, then_close: bool = False) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            await peer.asked()
            await peer.say(*answer)
            if then_close:
                return

    return script


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["a length", "chunks"])
@pytest.mark.parametrize("cut", [0, 1, 3, 20])
def test_an_answer_is_whole_however_it_is_cut_and_its_connection_is_used_again(
    short_dir: Path, answer: bytes, cut: int
) -> None:
    packets = [answer[at : at + cut] for at in range(0, len(answer), cut)] if cut else [answer]
    engine = Engine(short_dir, always(*packets))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        assert await whole(asking) == b"hello"
        assert (engine.made, len(asking)) == (1, 1)

    run(engine, test)


def test_what_was_sent_is_what_was_asked(short_dir: Path) -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            requests.append(await peer.asked())
            await peer.say(LENGTH)

    async def test(asking: HttpConnections) -> None:
        exchange = await asking.ask("POST", "/v1/x", b"\x00body", {"X-Request-Id": "1", "x-two": "b"}, 5)
        assert (exchange.status, exchange.headers) == (200, {"content-length": "5", "x-said": "é"})
        exchange.close()

    run(Engine(short_dir, script), test)
    head = b"POST /v1/x HTTP/1.1\r\nhost: engine\r\nX-Request-Id: 1\r\nx-two: b\r\ncontent-length: 5\r\n\r\n"
    assert requests == [head + b"\x00body"]


@pytest.mark.parametrize(
    ("path", "value"), [("/v1/x", "a\r\nx-more: 1"), ("/v1/x", "a\nb"), ("/v1 /x", "a"), ("/v1/x\r\n", "a")]
)
def test_what_can_stand_in_no_head_is_not_sent(short_dir: Path, path: str, value: str) -> None:
    engine = Engine(short_dir, always(LENGTH))

    async def test(asking: HttpConnections) -> None:
        with pytest.raises(ValueError, match="can't stand"):
            await asking.ask("POST", path, b"", {"x-request-id": value}, 5)

    run(engine, test)
    assert engine.made == 0


def test_an_answer_may_go_to_its_connections_end(short_dir: Path) -> None:
    engine = Engine(short_dir, always(TO_THE_END, then_close=True))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        assert await whole(asking) == b"hello"
        assert engine.made == 2

    run(engine, test)


def test_an_engine_may_close_after_an_answer(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        assert len(asking) == 0
        assert await whole(asking) == b"hello"
        assert engine.made == 2

    run(engine, test)


def test_a_connection_that_the_engine_closed_while_it_was_idle_is_not_used(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH, then_close=True))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        await asyncio.sleep(0.1)
        assert len(asking) == 0
        assert await whole(asking) == b"hello"

    run(engine, test)


def test_a_connection_that_was_idle_for_long_is_not_used(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH), keepalive_seconds=0.1)

    async def test(asking: HttpConnections) -> None:
        await whole(asking)
        await whole(asking)
        assert engine.made == 1
        await asyncio.sleep(0.2)
        await whole(asking)
        await asyncio.sleep(0.05)
        assert (engine.made, engine.ended) == (2, 1), "the old one was closed"

    run(engine, test)


def test_those_that_are_not_needed_any_more_are_closed(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH), keepalive_seconds=0.2)

    async def test(asking: HttpConnections) -> None:
        await asyncio.gather(*(whole(asking) for _ in range(20)))
        for _ in range(30):
            await whole(asking)
            await asyncio.sleep(0.01)
        assert (engine.made, engine.ended, len(asking)) == (20, 19, 1)

    run(engine, test)


@pytest.mark.parametrize("answer", [LENGTH[:15] + b"\r\nx-long: " + b"x" * 60_000, b"HTTP/1.1 200 " + b"O" * 60_000])
def test_a_head_without_an_end_is_not_read_on(short_dir: Path, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(answer)
        await peer.say(*[b"x" * 60_000] * 20)
        await peer.asked()

    engine = Engine(short_dir, script)

    async def test(asking: HttpConnections) -> None:
        with pytest.raises(ConnectionError, match="has no end"):
            await whole(asking)

    run(engine, test)


@pytest.mark.parametrize(
    "answer",
    [b"", LENGTH[:20], LENGTH[:-1], CHUNKED[:-4], CHUNKED[:-30], b"no HTTP at all\r\n\r\n", LENGTH[:30] + b"\x00\x01"],
)
def test_an_answer_that_breaks_off_or_is_none_is_no_answer(short_dir: Path, answer: bytes) -> None:
    engine = Engine(short_dir, always(answer, then_close=True))

    async def test(asking: HttpConnections) -> None:
        with pytest.raises(ConnectionError):
            await whole(asking)
        assert len(asking) == 0

    run(engine, test)


def test_words_that_nobody_asked_for_are_no_ones_answer(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH, LENGTH.replace(b"hello", b"other")))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        await asyncio.sleep(0.05)
        assert await whole(asking) == b"hello"
        assert engine.made == 2, "on a connection of its own"

    run(engine, test)


def test_two_answers_in_one_packet_are_one_answer_and_a_broken_connection(short_dir: Path) -> None:
    engine = Engine(short_dir, always(LENGTH + LENGTH.replace(b"hello", b"other")))

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking) == b"hello"
        assert await whole(asking) == b"hello"
        assert engine.made == 2

    run(engine, test)


def test_a_head_that_says_to_wait_is_no_answer(short_dir: Path) -> None:
    engine = Engine(short_dir, always(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", LENGTH))

    async def test(asking: HttpConnections) -> None:
        exchange = await asking.ask("POST", "/v1/x", b"", {}, 5)
        assert (exchange.status, "link" in exchange.headers) == (200, False)
        assert await exchange.read() == b"hello"
        exchange.close()
        assert await whole(asking) == b"hello"
        assert engine.made == 1

    run(engine, test)


@pytest.mark.parametrize("said", [b"", LENGTH[:20], LENGTH[:-1], CHUNKED[:-2], TO_THE_END])
def test_time_is_counted_to_the_end_of_the_answer_and_the_engine_is_told(short_dir: Path, said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(said)
        await peer.asked()

    engine = Engine(short_dir, script)

    async def test(asking: HttpConnections) -> None:
        with pytest.raises(TimeoutError):
            await whole(asking, timeout_seconds=0.1)
        await asyncio.sleep(0.05)
        assert engine.ended == 1

    run(engine, test)


@pytest.mark.parametrize("said", [LENGTH[:-1], CHUNKED[:-2], TO_THE_END])
def test_an_answer_whose_time_is_up_while_nobody_reads_is_not_whole(short_dir: Path, said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(said)
        await peer.asked()

    async def test(asking: HttpConnections) -> None:
        exchange = await asking.ask("POST", "/v1/x", b"{}", {}, 0.1)
        await asyncio.sleep(0.2)
        with pytest.raises(TimeoutError):
            assert [piece async for piece in _pieces(exchange)] == [], "an answer"
        exchange.close()

    run(Engine(short_dir, script), test)


@pytest.mark.parametrize("stays", [True, False])
def test_an_answer_that_comes_before_all_was_sent_is_an_answer(short_dir: Path, stays: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(LENGTH)
        if stays:
            await asyncio.sleep(0.2)

    engine = Engine(short_dir, script)

    async def test(asking: HttpConnections) -> None:
        assert await whole(asking, body=b" " * 2**23) == b"hello"
        assert await whole(asking) == b"hello"
        assert engine.made == 2, "the first one still owes what it was to send"

    run(engine, test)


def test_who_is_cancelled_breaks_the_connection(short_dir: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.asked()

    engine = Engine(short_dir, script)

    async def test(asking: HttpConnections) -> None:
        task = asyncio.create_task(whole(asking))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert engine.ended == 1

    run(engine, test)


def test_large_bodies_go_both_ways_and_wait_for_whoever_is_slow(short_dir: Path) -> None:
    size = 8 * 1024 * 1024

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.asked()
            body = request.partition(b"\r\n\r\n")[2]
            peer.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            peer.writer.write(body)
            await peer.writer.drain()

    engine = Engine(short_dir, script)
    body = bytes(range(256)) * (size // 256)

    async def test(asking: HttpConnections) -> None:
        for _ in range(2):
            exchange = await asking.ask("POST", "/v1/x", body, {}, 15)
            await asyncio.sleep(0.2)
            assert exchange._size < 1024 * 1024, "the rest waits in the engine"
            assert b"".join([piece async for piece in _pieces(exchange)]) == body
            exchange.close()
        assert engine.made == 1, "reading went on"

    run(engine, test)


def test_an_answer_that_is_whole_and_not_taken_keeps_its_connection(short_dir: Path) -> None:
    engine = Engine(short_dir, always(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000))

    async def test(asking: HttpConnections) -> None:
        for _ in range(3):
            exchange = await asking.ask("POST", "/v1/x", b"", {}, 5)
            while not exchange.is_whole:
                await exchange.read()
            exchange.close()
            exchange.close()
        assert (engine.made, len(asking)) == (1, 1)

    run(engine, test)


def test_each_exchange_has_a_connection_of_its_own(short_dir: Path) -> None:
    async def script(peer: Peer) -> None:
        while True:
            body = (await peer.asked()).partition(b"\r\n\r\n")[2]
            await asyncio.sleep(0.02)
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    engine = Engine(short_dir, script)

    async def test(asking: HttpConnections) -> None:
        for _ in range(2):
            bodies = [b"line %d" % number for number in range(40)]
            assert await asyncio.gather(*(whole(asking, body=body) for body in bodies)) == bodies
        assert (engine.made, len(asking)) == (40, 40)
        asking.close()
        assert len(asking) == 0

    run(engine, test)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_that_is_closed_as_soon_as_it_stands_ends_as_one_that_broke(
    short_dir: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.transport.abort()

    async def inside() -> None:
        async with Engine(short_dir, script).asked() as asking:
            for _ in range(50):
                with pytest.raises(ConnectionError):
                    await whole(asking)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(inside())


def test_one_that_is_lost_before_it_is_used_was_not_sent() -> None:
    async def lost(protocol: Callable[[], asyncio.Protocol]) -> None:
        here, there = socket.socketpair()
        there.close()
        transport, _ = await asyncio.get_running_loop().create_connection(protocol, sock=here)
        transport.abort()
        await asyncio.sleep(0.01)

    async def test() -> None:
        with pytest.raises(NotConnected, match="as soon as it stood"):
            await whole(HttpConnections(lost, "engine", 300))

    asyncio.run(test())


def test_where_nobody_listens_nothing_is_sent(short_dir: Path) -> None:
    async def test() -> None:
        with pytest.raises(NotConnected):
            await whole(connections(short_dir / "nobody.sock"))

    asyncio.run(test())
