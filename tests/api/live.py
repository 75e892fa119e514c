"""A live API for tests: uvicorn on a free port, and hands that do what workers would."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import openai
import structlog
import uvicorn
from api import documented
from e2e.live import TLS
from store import as_holder

from penstock.api.http import connection
from penstock.app import create_app
from penstock.domain.engines.profile import EngineProfile
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import Lane
from penstock.domain.work.slice import Claim
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.formats.output import Record
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings import Settings

# The server logs from its own thread, and pytest swaps sys.stdout meanwhile: so it is kept, and printed at the end.
_log = io.StringIO()
structlog.configure(logger_factory=structlog.PrintLoggerFactory(_log))

KEY = "sk-penstock-the-key-of-the-tests"
CHAT = "/v1/chat/completions"


def log_lines() -> list[str]:
    """What the server has logged since it began."""
    return _log.getvalue().splitlines()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()
        self._end = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.is_up.set()

    async def main_loop(self) -> None:
        """As uvicorn's own, which sleeps between two ticks and hears of its end only then."""
        ticks = itertools.count()
        while not await self.on_tick(next(ticks)):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), 0.1)

    def end(self) -> None:
        """Tell it to end, from another thread."""
        self.should_exit = True
        if self.is_up.is_set():
            self._loop.call_soon_threadsafe(self._end.set)


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[str]:
    """Serve the API with these settings, at a free port or this one; gives its address."""
    config = uvicorn.Config(
        create_app(settings),
        host="127.0.0.1",
        port=port,
        log_config=None,
        timeout_graceful_shutdown=5,
        **connection.options(settings),
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.is_up.wait(30), "the API did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.end()
        thread.join(30)
        print(_log.getvalue())
        _log.seek(0)
        _log.truncate()


def http(url: str, key: str = KEY) -> httpx.Client:
    """A plain client with a key, which lets no answer pass that is not documented."""
    hooks: dict[str, Any] = {"response": [documented.check]}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False, event_hooks=hooks, verify=TLS)


def sdk(url: str, key: str = KEY, **options: Any) -> openai.OpenAI:
    """OpenAI's own client, which lets no answer pass that is not documented."""
    client = openai.DefaultHttpxClient(event_hooks={"response": [documented.check]}, verify=TLS)
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=client, **options)


def upload(client: httpx.Client, data: bytes = b"{}\n", filename: str = "in.jsonl") -> dict[str, Any]:
    """Upload a file and give its object."""
    answer = client.post("/v1/files", files={"file": (filename, data)}, data={"purpose": "batch"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def create(client: httpx.Client, file: str, **more: Any) -> dict[str, Any]:
    """Create a batch of a file and give its object."""
    answer = client.post("/v1/batches", json=batch_of(file) | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def batch_of(file: str) -> dict[str, Any]:
    """The body that makes a batch."""
    return {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}


def chat(text: str = "hello") -> dict[str, Any]:
    """A chat request without a model."""
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8}


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's envelope and a request id."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["x-request-id"].startswith("req_")
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


def arrive(
    db: Database, settings: Settings, kind: str, model: str | None = None, engine: EngineProfile | None = None
) -> Holder:
    """Enter a live worker, as its process does at its start."""
    holder = Holder(uuid.uuid4(), kind, model, "test", os.getpid())
    db.run(work.register, holder, "starting", 8, engine)
    db.run(work.mark, holder, "ready", settings)
    return holder


def claim_one(db: Database, settings: Settings, holder: Holder) -> Claim:
    """Claim one slice as soon as it is ready: a job is fed just after it was answered."""
    deadline = time.monotonic() + 10
    while not (claims := db.run(work.claim, holder, list(Lane), uuid.uuid4(), settings)):
        assert time.monotonic() < deadline, "nothing is ready"
    return claims[0]


def settle_one(
    db: Database, settings: Settings, holder: Holder, answer: Callable[[int, str], tuple[int, bytes]]
) -> None:
    """Claim one slice of an inline job, answer its lines last first, and settle it."""
    claim = claim_one(db, settings, holder)
    assert claim.inline is not None
    records: list[Record] = []
    for number, line in reversed(list(plan.unframe(claim.inline))):
        asked = lines.read(number, line)
        status, body = answer(number, asked.custom_id)
        records.append(output.answered(claim.batch, number, asked.custom_id, status, "req", body))
    db.run(as_holder.flush, claim, 0, records, None)
    db.run(as_holder.settle, claim)


def completion(text: str) -> bytes:
    """What an engine answers to a chat request."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode()
