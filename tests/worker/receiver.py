"""A receiver of webhooks that answers as its script says: each path on its own, the last answer again and again.

with Receiver() as receiver:
    receiver.answers("/hook", 503, 410)
    url = receiver.url("/hook")
    got = receiver.wait("/hook", 2)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Got:
    """One attempt, as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        """Its webhook-id."""
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Answer:
    """What a receiver does with one attempt."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"thanks"
    endless: bool = False
    """The body does not end, but for a GiB."""
    hangs: bool = False
    """No answer at all, until the receiver ends."""
    after_seconds: float = 0.0


HANGS = Answer(hangs=True)


class Receiver:
    """A server of its own thread, on a free port of loopback."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.sent_bytes = 0
        self.got: list[Got] = []
        self._answers: dict[str, list[Answer]] = defaultdict(lambda: [Answer()])
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._ended = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._ended.set()
        await self._runner.cleanup()

    def answers(self, path: str, *script: int | Answer) -> None:
        """What is answered there, one after the other."""
        self._answers[path] = [one if isinstance(one, Answer) else Answer(one) for one in script]

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Got]:
        """What came there."""
        with self._news:
            return [one for one in self.got if one.path == path]

    def wait(self, path: str, count: int = 1, seconds: float = 20.0) -> list[Got]:
        """What came there, once it is so many."""
        end = time.monotonic() + seconds
        with self._news:
            while len(found := [one for one in self.got if one.path == path]) < count:
                left = end - time.monotonic()
                assert left > 0, f"{len(found)} of {count} attempts came to {path}"
                self._news.wait(left)
            return found

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        got = Got(request.path, {k.lower(): v for k, v in request.headers.items()}, body, time.monotonic())
        script = self._answers[request.path]
        answer = script.pop(0) if len(script) > 1 else script[0]
        with self._news:
            self.got.append(got)
            self._news.notify_all()
        if answer.hangs:
            await self._ended.wait()
        if answer.after_seconds:
            await asyncio.sleep(answer.after_seconds)
        if answer.endless:
            return await self._endless(request, answer)
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    async def _endless(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status)
        await response.prepare(request)
        piece: Any = b"x" * (1 << 16)
        for _ in range(1 << 14):
            await response.write(piece)
            self.sent_bytes += len(piece)
        return response
