"""Ours: a whole platform for a benchmark: batches that keep its engine full, calls through its API, what its gate says.

`penstock up` in this process, one of everything, with the engine's own socket at hand for the other side of a
comparison.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import aiohttp
import openai
from bench import arms, counters, guarded
from bench.arms import Plan, Window, idle
from bench.load import CHAT, Target
from sqlalchemy.exc import SQLAlchemyError

from penstock.cli.database import opened
from penstock.domain.calls.ingress import Ingress
from penstock.domain.work.lane import model_slug
from penstock.service.admin import keys
from penstock.service.calls import ingresses
from penstock.settings import Settings
from penstock.stack import layout
from penstock.stack import up as stack
from penstock.stack.ports import free_port

ENDED: Final = ("completed", "failed", "expired", "cancelled")
_TEND_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.2
_FILL_SECONDS: Final = 30.0
_READY_SECONDS: Final = 120.0
_LOOKS: Final = 3
_TRIES: Final = 6
"""Of a request that is not measured, each at most a minute long."""


@dataclass(frozen=True)
class Ours:
    """A platform that runs."""

    running: stack.Running
    engine: Target
    """Its engine's socket."""
    api: Target
    client: openai.OpenAI
    """For what is not measured."""

    def key(self, tenant: str) -> str:
        """A key for another tenant."""
        with opened(self.running.layout.data) as db:
            return str(db.run(keys.create, tenant, "bench")[1])

    def ingress(self) -> Ingress | None:
        """The worker's ingress as its last load report said it; None if there is none, or nobody could be asked.

        Whatever the engine leaves no processor for answers late, Postgres too: what is only noted may not end a run.
        """
        for _ in range(_LOOKS):
            try:
                with opened(self.running.layout.data) as db:
                    found = db.run(ingresses.table, Settings()).ingresses
            except SQLAlchemyError as error:
                self.running.say(f"the ingresses can't be read: {type(error).__name__}")
            else:
                return found[0] if found else None
        return None

    def cli(self, *arguments: str) -> None:
        """Run one command of ours, as an operator does."""
        command = [sys.executable, "-m", "penstock.cli.main", *arguments, "--data", str(self.running.layout.data)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"penstock {' '.join(arguments)}: {done.stderr or done.stdout}")

    def upload(self, bodies: Iterator[dict[str, Any]]) -> str:
        """Upload a file of such lines; its id."""
        data = b"".join(
            json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": body}).encode() + b"\n"
            for n, body in enumerate(bodies)
        )
        return str(self.client.files.create(file=("bench.jsonl", data), purpose="batch").id)

    @asynccontextmanager
    async def batch(self, file: str, lane: str, engine: aiohttp.ClientSession) -> AsyncIterator[str]:
        """A batch of this file that fills the engine as far as its gate lets it; cancelled at the end, engine empty."""
        made = await asyncio.to_thread(
            self.client.batches.create,
            input_file_id=file, endpoint=CHAT, completion_window="24h", extra_body={"lane": lane},
        )  # fmt: skip
        try:
            try:
                await _until(lambda: self._full(engine), f"the batch {made.id} fills the engine", _FILL_SECONDS)
            except TimeoutError as error:  # its lines/s will say the rest
                self.running.say(str(error))
            yield made.id
        finally:
            with suppress(openai.ConflictError):  # it has run dry, and the arm says so
                await asyncio.to_thread(self.client.batches.cancel, made.id)
            await _until(lambda: self._ended(made.id), f"the batch {made.id} ends")
            await idle(engine)

    def counts(self, batch: str) -> tuple[int, int]:
        """Lines of a batch that were recorded so far, and those that were not."""
        counts = self.client.batches.retrieve(batch).request_counts
        return (counts.completed, counts.total - counts.completed - counts.failed) if counts else (0, 0)

    async def _full(self, engine: aiohttp.ClientSession) -> bool:
        now = await counters.counts(engine)
        ingress = await asyncio.to_thread(self.ingress)
        return ingress is not None and now.running + now.waiting >= 0.9 * ingress.load.budget > 0

    async def _ended(self, batch: str) -> bool:
        return (await asyncio.to_thread(self.client.batches.retrieve, batch)).status in ENDED


async def _until(look: Callable[[], Any], what: str, seconds: float = _READY_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not await look():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s not yet: {what}")
        await asyncio.sleep(_LOOK_SECONDS)


@contextmanager
def platform(
    folder: Path,
    *,
    engine: str,
    arguments: Sequence[str],
    source: str | None,
    say: Callable[[str], None],
    settings: Mapping[str, str] | None = None,
) -> Iterator[Ours]:
    """Start everything in this folder, told these settings beside the environment's, and end it."""
    # Not the usual port: a platform that was started meanwhile would have it before our API, which comes last.
    wish = stack.StackOptions(
        data=folder, port=free_port(), engine=engine, engine_args=tuple(arguments), source=source,
        flower_port=free_port(),
    )  # fmt: skip
    environment = guarded.without_benchmarks(os.environ) | (settings or {})
    with stack.platform(wish, environment, say) as running:
        socket = layout.runtime_folder(running.layout, environment) / model_slug(running.model) / "engine.sock"
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, timeout=60, max_retries=_TRIES) as client:
            yield Ours(
                running,
                Target("engine", socket=socket),
                Target("ours", url=running.url, key=running.key),
                client,
            )


@asynccontextmanager
async def tended(running: stack.Running) -> AsyncIterator[None]:
    """Look after the platform's children meanwhile."""
    over = asyncio.Event()

    async def tend() -> None:
        while not over.is_set():
            await asyncio.to_thread(running.tend)
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _TEND_SECONDS)

    async with asyncio.TaskGroup() as group:
        group.create_task(tend())
        try:
            yield
        finally:
            over.set()


def lines(plan: Plan, round: int, count: int) -> Iterator[dict[str, Any]]:
    """So many bodies of a round's lines."""
    return (body for _, body in islice(plan.lines(round), count))


async def window(
    arm: str, round: int, plan: Plan, platform: Ours, engine: aiohttp.ClientSession, api: aiohttp.ClientSession, id: str
) -> Window:
    """A window of waiting calls through the API while this batch runs, with what the platform says of itself."""
    began, (before, _) = time.monotonic(), await asyncio.to_thread(platform.counts, id)
    found = await arms.window(arm, round, plan, engine, api)
    seconds, (after, left) = time.monotonic() - began, await asyncio.to_thread(platform.counts, id)
    ingress = await asyncio.to_thread(platform.ingress)
    found.notes = {
        "recorded_per_second": float(f"{(after - before) / seconds:.1f}"),
        "budget": ingress.load.budget if ingress else None,
        "reason": ingress.load.reason if ingress else None,
    }
    if left < 2 * (ingress.slots if ingress else 1):
        found.notes["ran_dry"] = True
    return found
