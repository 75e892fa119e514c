"""What the tests of the ingress share: an ingress on a real engine under a real supervisor, and callers."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from worker.engines import echo_launch, wait_ready

from penstock.domain.work.rank import Rank
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.budget.budget_loop import BudgetLoop
from penstock_worker.budget.latency import Latencies
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.call_server import CallServer
from penstock_worker.ingress.ingress_metrics import IngressMetrics
from penstock_worker.runtime.loop_thread import LoopThread

TOKEN = "the-ingress's-token"
CHAT = "/v1/chat/completions"


@dataclass
class Heard:
    """What the ingress tells the line budget."""

    ttfts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def ttft(self, seconds: float) -> None:
        self.ttfts.append(seconds)

    def gap(self, seconds: float) -> None:
        self.gaps.append(seconds)


@dataclass
class Site:
    """An ingress, and what is behind it."""

    ingress: CallServer
    gate: Gate
    supervisor: Supervisor
    loop: LoopThread
    engine: EngineContext
    heard: Heard
    worker: uuid.UUID
    changes: list[bool]

    def metric(self, name: str) -> float:
        """A number of the engine's own."""
        page = probe.get(self.supervisor.launch.socket, "/metrics", 5.0)
        assert page
        return next(float(row.split()[-1]) for row in page[1].decode().splitlines() if row.startswith(name))

    @contextmanager
    def holding(self, rank: Rank, count: int, tenant: str = "other") -> Iterator[None]:
        """Others have so many slots meanwhile, each tenant one: a single one would not get them all."""
        tickets = [Ticket(rank, f"{tenant}-{n}") for n in range(count)]

        async def take() -> None:
            for ticket in tickets:
                await self.gate.admit(ticket)

        async def give() -> None:
            for ticket in tickets:
                self.gate.release(ticket)

        self.loop.run(take()).result(10)
        try:
            yield
        finally:
            self.loop.run(give()).result(10)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Somebody tries suspects meanwhile, or waits until the engine is empty for that."""
        shut, over = threading.Event(), asyncio.Event()

        async def hold() -> None:
            asyncio.get_running_loop().call_soon(shut.set)
            async with self.gate.alone():
                await over.wait()

        done = self.loop.run(hold())
        assert shut.wait(10)
        assert self.gate.trying
        try:
            yield
        finally:
            self.loop.loop.call_soon_threadsafe(over.set)
            done.result(10)


@contextmanager
def engine_of_its_own(short_dir: Path, *arguments: str, **given: Any) -> Iterator[EngineContext]:
    """An echo engine with a gate before it; keywords are settings."""
    settings = Settings(**{"ingress_token": TOKEN, **given})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=short_dir)))
        launch = echo_launch(folder, *arguments)
        supervisor = stack.enter_context(Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log"))
        loop = stack.enter_context(LoopThread())
        client = EngineClient(socket=launch.socket, generation=lambda: supervisor.generation, profile=launch.profile)
        stack.enter_context(loop.living(client))
        yield EngineContext(
            client, Gate(launch.batch_slots, launch.engine_slots, launch.overtakers), supervisor, loop, settings
        )


@contextmanager
def site(short_dir: Path, *arguments: str, **given: Any) -> Iterator[Site]:
    """An ingress on an echo engine of its own; keywords are settings."""
    with ExitStack() as stack:
        engine = stack.enter_context(engine_of_its_own(short_dir, *arguments, **given))
        heard, worker, changes = Heard(), uuid.uuid4(), list[bool]()
        budget_loop = BudgetLoop(
            engine.gate, engine.client, Latencies(), engine.settings
        )  # it says what it sees, and never looks
        ingress = CallServer(
            engine, worker, IngressMetrics(engine.gate, heard, budget_loop), lambda: changes.append(ingress.is_open)
        )
        stack.enter_context(engine.loop.living(ingress.opened()))
        wait_ready(engine.supervisor, 60)
        yield Site(ingress, engine.gate, engine.supervisor, engine.loop, engine, heard, worker, changes)


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A chat's body."""
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **more}


class Caller:
    """The router's side of an ingress."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    @asynccontextmanager
    async def call(
        self, body: Any, endpoint: str = CHAT, id: str = "", token: str = TOKEN, **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call; its answer is read, or left, inside the `with`."""
        told = {
            "authorization": f"Bearer {token}",
            "x-penstock-call": id or uuid.uuid4().hex,
            "x-penstock-tenant": "one",
            **{f"x-penstock-{name}".replace("_", "-"): value for name, value in headers.items()},
        }
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(self.url + endpoint, data=data, headers=told) as response:
            yield response

    async def refusal(self, body: Any, **more: str) -> tuple[int, str | None]:
        """The status of a call, and what the ingress says."""
        async with self.call(body, **more) as response:
            await response.read()
            return response.status, response.headers.get("x-penstock-refusal")

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, Any]:
        """A question to the ingress itself."""
        told = {"authorization": f"Bearer {token}"}
        async with self._session.get(self.url + path, headers=told) as response:
            raw = await response.read()
            return response.status, json.loads(raw) if response.content_type == "application/json" else raw.decode()


@asynccontextmanager
async def caller(url: str, **more: Any) -> AsyncIterator[Caller]:
    """Somebody who calls."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, **more)) as session:
        yield Caller(session, url)


def calling(url: str, do: Callable[[Caller], Any], seconds: float = 60.0) -> Any:
    """Run a caller to its end."""

    async def run() -> Any:
        async with caller(url) as one:
            return await asyncio.wait_for(do(one), seconds)

    return asyncio.run(run())


async def soon(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Look until there is something to see."""
    end = time.monotonic() + seconds
    while not (seen := await asyncio.to_thread(look)):
        assert time.monotonic() < end, "it does not come"
        await asyncio.sleep(0.01)
    return seen
