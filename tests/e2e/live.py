"""A live `penstock up`, and what the tests ask of it: batches through OpenAI's SDK, processes by pid and start time."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import openai
import psutil
from e2e.glance import Glance
from openai.types import Batch

from penstock.domain.work.lane import model_slug
from penstock.stack import layout as layouts
from penstock.stack import postgres
from penstock.stack.ports import free_port
from penstock_worker.engine.process import process_record
from penstock_worker.engine.process.guard import Process

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
ENDED = ("completed", "failed", "expired", "cancelled")
R = TypeVar("R")
TLS: Final = ssl.create_default_context()
"""For `verify`: a client that is given none makes one, which takes 20 ms of a core; in a loop that is all it does."""


def until(look: Callable[[], R], what: Callable[[], str] | str, seconds: float = 60.0) -> R:
    """Look again and again until there is something to see; fail with `what` at the deadline.

    The longer it has waited the rarer it looks: a look costs the processes that are waited for, too.
    """
    begin = time.monotonic()
    while not (seen := look()):
        waited = time.monotonic() - begin
        assert waited < seconds, f"after {seconds:g} s not yet: {what if isinstance(what, str) else what()}"
        time.sleep(min(max(0.05, waited / 20), 0.25))
    return seen


def chat(custom_id: str, text: str, model: str = "tiny", **body: Any) -> dict[str, Any]:
    """One chat request as a line of a batch."""
    asked = {"model": model, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": asked}


def embed(custom_id: str, text: str, model: str = "tiny") -> dict[str, Any]:
    """One request for a text's vector as a line of a batch."""
    return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": {"model": model, "input": text}}


def jsonl(lines: Sequence[dict[str, Any]]) -> bytes:
    """The lines as a file."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def said(line: dict[str, Any]) -> str:
    """What the engine answered, of an output line."""
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


@dataclass
class Client:
    """One tenant's clients of a live API: OpenAI's SDK, and plain HTTP under `/v1`."""

    sdk: openai.OpenAI
    http: httpx.Client

    def submit(self, lines: Sequence[dict[str, Any]] | bytes, **extra: Any) -> Batch:
        """Upload the lines and create a batch of them."""
        data = lines if isinstance(lines, bytes) else jsonl(lines)
        file = self.sdk.files.create(file=("requests.jsonl", data), purpose="batch")
        return self.sdk.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", extra_body=extra or None
        )

    def watched(self, id: str, sight: Callable[[Batch], bool], what: str, seconds: float = 60.0) -> Batch:
        """Poll the batch until it looks like this."""
        seen = [self.sdk.batches.retrieve(id)]

        def look() -> bool:
            seen[0] = self.sdk.batches.retrieve(id)
            return sight(seen[0])

        until(look, lambda: f"{what}; it is {seen[0].status}, {seen[0].request_counts}", seconds)
        return seen[0]

    def ended(self, id: str, seconds: float = 60.0) -> Batch:
        """Poll the batch until it has ended."""
        return self.watched(id, lambda batch: batch.status in ENDED, f"the end of {id}", seconds)

    def file(self, id: str | None) -> list[dict[str, Any]]:
        """The lines of an output or error file; none if there is no file."""
        return [] if id is None else [json.loads(line) for line in self.sdk.files.content(id).content.splitlines()]


@contextmanager
def client(url: str, key: str) -> Iterator[Client]:
    """Clients that speak to this address with this key."""
    headers = {"authorization": f"Bearer {key}"}
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, timeout=60) as sdk,
        httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=60, trust_env=False, verify=TLS) as http,
    ):
        yield Client(sdk, http)


@dataclass
class Platform(Client):
    """One `penstock up` that is ready, and clients of it."""

    process: subprocess.Popen[bytes]
    data: Path
    runtime: Path
    url: str
    flower_url: str
    environment: Mapping[str, str]
    glance: Glance

    def sql(self, statement: str, *values: Any) -> None:
        """Change something behind the platform's back."""
        self.glance.rows(statement, *values)

    def ask(self, query: str, *values: Any) -> Any:
        """One value from the database."""
        rows = self.rows(query, *values)
        return rows[0][0] if rows else None

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Rows from the database."""
        return self.glance.rows(query, *values)

    def child(self, name: str) -> psutil.Process:
        """The child that writes this log; Celery changes its own command line."""
        children = psutil.Process(self.process.pid).children()
        return next(one for one in children if Path(os.readlink(f"/proc/{one.pid}/fd/1")).stem == name)

    def engine_socket(self, model: str = "tiny") -> Path:
        """Where the engine itself listens."""
        return self.runtime / model_slug(model) / "engine.sock"

    def engine(self, model: str = "tiny") -> tuple[Process, ...]:
        """The engine's processes that were seen so far, guard first; empty while there is none."""
        found = process_record.read(self.runtime / model_slug(model) / "engine.json")
        return found.processes if found else ()


@contextmanager
def up(data: Path, *flags: str, ready_seconds: float = 180.0, **settings: str) -> Iterator[Platform]:
    """Start `penstock up`, wait until it is ready, and end it by its pid."""
    port, flower_port = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environment |= {f"PENSTOCK_{name.upper()}": value for name, value in settings.items()}
    environment["XDG_RUNTIME_DIR"] = str(data.parent)  # where the runtime folder goes, and is removed with the rest
    command = [PENSTOCK, "up", "--data", str(data), "--port", str(port), "--flower-port", str(flower_port), *flags]
    told = data.with_suffix(".out")
    with told.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd="/")
    url = f"http://127.0.0.1:{port}"
    try:
        until(
            lambda: process.poll() is not None or b"Ctrl-C" in told.read_bytes(),
            "`penstock up` is ready",
            ready_seconds,
        )
        assert process.poll() is None, told.read_text()
        key = (data / "key").read_text().strip()
        runtime = layouts.runtime_folder(layouts.at(data), environment)
        with client(url, key) as ours:
            flower_url = f"http://127.0.0.1:{flower_port}"
            with closing(Glance(postgres.url(runtime / "postgres"))) as glance:
                yield Platform(ours.sdk, ours.http, process, data, runtime, url, flower_url, environment, glance)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)
