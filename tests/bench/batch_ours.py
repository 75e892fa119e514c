"""Our side of `make bench-batch`: a file, or as many jobs as it has lines, through the HTTP API, and where time went.

The clock runs from the create (the file was uploaded before) to the moment when the API says that it is completed;
upload and download are timed beside it. Jobs are posted by callers that don't wait, and the clock runs until each was
seen completed, with its answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from bench import batch_files, counters, ours
from bench.load import CHAT
from bench.occupancy import Load, watched
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from penstock.cli.database import opened
from penstock.service.core.transaction import Transaction
from penstock.stack.up import SERVERS

CALLERS: Final = 16
_WAIT_SECONDS: Final = 60
_RESET_SECONDS: Final = 10.0
_WAKE_SECONDS: Final = 60.0

_TIMES = text("""
    -- When each phase of a batch ended, in seconds after its create; the database's clock is finer than the API's.
    select extract(epoch from b.in_progress_at - b.created_at) as validated,
           extract(epoch from (select min(g.created_at) from segments g join slices s on s.id = g.slice
                               where s.batch = b.id) - b.created_at) as first_segment,
           extract(epoch from b.finalizing_at - b.created_at) as generated,
           extract(epoch from b.completed_at - b.created_at) as assembled,
           (select count(*) from slices s where s.batch = b.id) as slices
    from batches b where b.id = :batch""")


@dataclass
class Done:
    """A file that was run."""

    seconds: float
    lines: int
    load: Load
    upload_seconds: float = 0.0
    download_seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    """validate, generate (with the time to its first segment), assemble; in seconds, by the database's clock."""
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def lines_per_second(self) -> float:
        """What is compared."""
        return self.lines / self.seconds

    def json(self) -> dict[str, Any]:
        """For a file."""
        return {"lines_per_second": round(self.lines_per_second, 2)} | asdict(self)

    @classmethod
    def read(cls, json: dict[str, Any]) -> Done:
        """From such a file."""
        return cls(
            **{name: value for name, value in json.items() if name != "lines_per_second"}
            | {"load": Load(**json["load"])}
        )


@dataclass(frozen=True)
class Side:
    """A platform and the two roads to it: its API, and its engine's own socket."""

    platform: ours.Ours
    api: aiohttp.ClientSession
    engine: aiohttp.ClientSession
    has_prefix_cache: bool = True
    """The simulated engine has none."""
    url: str = CHAT
    """What a line asks that only shows that all are awake."""

    async def forget(self) -> None:
        """Reset the engine's prefix cache, which works once nothing runs."""
        if not self.has_prefix_cache:
            return
        end = time.monotonic() + _RESET_SECONDS
        while True:
            async with self.engine.post("/reset_prefix_cache") as response:
                if response.status == 200 and (await response.json())["success"]:
                    return
            if time.monotonic() > end:
                raise RuntimeError("our engine's prefix cache could not be reset")
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def asleep(self) -> AsyncIterator[None]:
        """Stop every process of ours but the servers and the engine, so that the other side's run loses nothing to us.

        Idle they take some hundredths of a core. Awake again, they have run one line before anything is measured.
        """
        children = self.platform.running.children
        pids = [child.pid for child in children if child.name not in SERVERS and child.pid is not None]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + _WAKE_SECONDS
        while await asyncio.to_thread(self.platform.ingress) is None:
            if time.monotonic() > end:
                raise RuntimeError("our worker did not wake up")
            await asyncio.sleep(0.2)
        await self.batch(_one_line(self.platform.running.model, self.url))

    async def batch(self, data: bytes, **terms: Any) -> tuple[Done, bytes]:
        """Run a file as a batch; gives its output, too. `terms` are put into the create."""
        began = time.monotonic()
        upload = self.platform.client.files.create
        file = (await asyncio.to_thread(upload, file=("bench.jsonl", data), purpose="batch")).id
        uploaded = time.monotonic()
        await self.forget()
        async with watched(lambda: counters.counts(self.engine)) as load:
            created = time.monotonic()
            asked = {
                "input_file_id": file,
                "endpoint": json.loads(data.partition(b"\n")[0])["url"],
                "completion_window": "24h",
            } | terms
            made = await _json(self.api.post("/v1/batches", json=asked))
            while made["status"] not in ours.ENDED:
                made = await _json(self.api.get(f"/v1/batches/{made['id']}", params={"wait": _WAIT_SECONDS}))
            ended = time.monotonic()
        counts = made["request_counts"]
        if made["status"] != "completed" or counts["failed"] or not made["output_file_id"]:
            raise RuntimeError(f"the batch ended {made['status']} with {counts}")
        plain = {"accept-encoding": "identity"}
        async with self.api.get(f"/v1/files/{made['output_file_id']}/content", headers=plain) as response:
            response.raise_for_status()
            output = await response.read()
        done = Done(ended - created, counts["total"], load, uploaded - began, time.monotonic() - ended)
        done.phases = await asyncio.to_thread(self._phases, made["id"])
        done.usage = made["usage"]
        return done, output

    async def command(self, data: bytes) -> tuple[Done, bytes]:
        """Run a file with `penstock run --server`; its time is what it says: from the upload to a whole OUT."""
        await self.forget()
        with tempfile.TemporaryDirectory(prefix="ps-run-") as folder:
            file, output = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
            file.write_bytes(data)
            async with watched(lambda: counters.counts(self.engine)) as load:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "penstock.cli.main", "run", "-i", file, "-o", output),
                    *("--server", self.platform.running.url),
                    env=os.environ | {"PENSTOCK_API_KEY": self.platform.running.key},
                    stderr=asyncio.subprocess.PIPE,
                )
                said = (await process.communicate())[1].decode()
            found = re.search(r"is whole: .*, ([\d.]+) s$", said, re.MULTILINE)
            if process.returncode or not found:
                raise RuntimeError(f"penstock run: {said[-500:]}")
            return Done(float(found[1]), data.count(b"\n"), load), output.read_bytes()

    async def jobs(self, bodies: Sequence[dict[str, Any]], callers: int = CALLERS) -> Done:
        """Run each request as a job of its own."""
        await self.forget()
        async with watched(lambda: counters.counts(self.engine)) as load:
            began = time.monotonic()
            parts = [bodies[n::callers] for n in range(callers)]
            posted = await asyncio.gather(*(self._post(part) for part in parts))
            post_seconds = time.monotonic() - began
            await asyncio.gather(*(self._collect(ids) for ids in posted))
            seconds = time.monotonic() - began
        return Done(seconds, len(bodies), load, phases={"post": round(post_seconds, 3)})

    async def _post(self, bodies: Sequence[dict[str, Any]]) -> list[str]:
        made = []
        for body in bodies:
            asked = {"endpoint": CHAT, "body": body}
            made.append((await _json(self.api.post("/v1/jobs", json=asked)))["id"])
        return made

    async def _collect(self, ids: Sequence[str]) -> None:
        for id in ids:
            job: dict[str, Any] = {"status": ""}
            while job["status"] not in ours.ENDED:
                job = await _json(self.api.get(f"/v1/jobs/{id}", params={"wait": _WAIT_SECONDS}))
            if job["status"] != "completed" or job["request_counts"]["completed"] != 1 or len(job["results"]) != 1:
                raise RuntimeError(f"the job {id} ended {job['status']} with {job['request_counts']}")

    def _phases(self, batch: str) -> dict[str, float]:
        """What could not be asked is left out: no figure is worth the run."""
        with suppress(SQLAlchemyError), opened(self.platform.running.layout.data) as db:
            return _split(db.run(_times, batch))
        return {}


def _one_line(model: str, url: str) -> bytes:
    text = "Is anybody there?"
    chat = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, "temperature": 0}
    return batch_files.jsonl([{"model": model} | (chat if url == CHAT else {"input": text})], url)


def _times(tx: Transaction, batch: str) -> dict[str, Any]:
    return dict(tx.conn.execute(_TIMES, {"batch": batch}).mappings().one())


def _split(at: dict[str, Any]) -> dict[str, float]:
    seconds = {name: float(value) for name, value in at.items() if value is not None}
    found = {
        "validate": seconds["validated"],
        "generate": seconds["generated"] - seconds["validated"],
        "assemble": seconds["assembled"] - seconds["generated"],
        "slices": seconds["slices"],
    }
    if "first_segment" in seconds:
        found["first_segment_after"] = seconds["first_segment"] - seconds["validated"]
    return {name: round(value, 3) for name, value in found.items()}


async def _json(asking: Any) -> Any:
    async with asking as response:
        if response.status == 200:
            return await response.json()
        why = f"{response.url.path} answered {response.status}: {(await response.text())[:500]}"
        raise Refused(why) if response.status == 400 else RuntimeError(why)


class Refused(RuntimeError):
    """The API does not know what was asked."""
