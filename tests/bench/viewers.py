"""`make bench-viewers`: what people who watch a batch in the console cost waiting calls of the same API process.

It starts a house with one API and one worker on the echo engine (simulated). A batch moves once a second the whole
time. A repeat is two blocks in an order that the seed draws: streamed calls, one after the other, with nobody watching,
and with so many viewers, who are another process's. It compares the medians of the time to the first token, pair by
pair, and ends with 1 if they grew by 10 % or more.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import httpx
import psutil
from bench import paired, result, stop
from e2e.live import CHAT
from faults.house import KEY, MODEL, House
from faults.servers import PostgresServer, ValkeyServer
from rich.console import Console

MOST_GROWTH: Final = 1.10
_OURS: Final = {"sec-fetch-site": "same-origin"}
_KEY: Final = "BENCH_VIEWERS_KEY"
_SHARES: Final = 5
"""Processor time is looked at in so many repeats; it differs little, and the medians need many short pairs."""


async def first_tokens(url: str, calls: int) -> list[float]:
    """Milliseconds to the first token of streamed calls, one after the other."""
    taken = []
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(calls):
            messages = [{"role": "user", "content": f"short {number}"}]
            began = time.perf_counter()
            async with session.post(
                f"{url}{CHAT}", json={"model": MODEL, "messages": messages, "stream": True, "max_tokens": 4}
            ) as answer:
                assert answer.status == 200, await answer.text()
                await answer.content.readany()
                taken.append(1000 * (time.perf_counter() - began))
                await answer.read()
            await asyncio.sleep(0.02)
    return taken


async def watch(url: str, batch: str, viewers: int) -> None:
    """Watch with so many, until told to end; says `ready` once each has a snapshot, and then how many parts came."""
    jar = aiohttp.CookieJar(unsafe=True)  # of an address without a name
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar, headers=_OURS) as session:
        async with session.post(f"{url}/console/login", data={"key": os.environ[_KEY], "then": "/jobs"}) as answer:
            assert answer.status == 200, await answer.text()
        ready = asyncio.Semaphore(0)

        async def one() -> None:
            async with session.get(
                f"{url}/console/batches/{batch}/stream", timeout=aiohttp.ClientTimeout(total=None)
            ) as answer:
                assert answer.content_type == "text/event-stream", await answer.text()
                async for line in answer.content:
                    if line == b"\n":
                        ready.release()

        watching = [asyncio.create_task(one()) for _ in range(viewers)]
        for _ in range(viewers):
            await asyncio.wait_for(ready.acquire(), 60)
        print("ready", flush=True)
        await asyncio.gather(*watching)


@contextmanager
def watched(url: str, batch: str, viewers: int) -> Iterator[None]:
    """So many watch meanwhile."""
    if not viewers:
        yield
        return
    command = [sys.executable, "-m", "bench.viewers", "--watch", url, batch, "--viewers", str(viewers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {_KEY: KEY}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n", "the viewers did not begin"
        try:
            yield
        finally:
            child.terminate()


@asynccontextmanager
async def moving(house: House, batch: str) -> AsyncIterator[None]:
    """The batch moves once a second meanwhile."""

    async def moves() -> None:
        while True:
            await asyncio.to_thread(house.sql, f"update batches set total = total + 1 where id = '{batch}'")
            await asyncio.sleep(1)

    task = asyncio.create_task(moves())
    try:
        yield
    finally:
        task.cancel()


async def block(house: House, batch: str, calls: int) -> float:
    """The median of so many calls, in ms."""
    async with moving(house, batch):
        return paired.percentile(await first_tokens(house.url, calls), 50)


async def share(house: House, batch: str, seconds: float = 5.0) -> float:
    """What the API process takes of a core while nobody calls: this a busy machine changes little."""
    api = psutil.Process(house.pid("api-1"))
    async with moving(house, batch):
        before = sum(api.cpu_times()[:2])
        await asyncio.sleep(seconds)
        return (sum(api.cpu_times()[:2]) - before) / seconds


def measure(given: argparse.Namespace, folder: Path) -> tuple[list[tuple[float, float]], list[float]]:
    """Pairs of medians, nobody watches and some do; and what they cost of a core while nobody calls."""
    order, pairs, shares = random.Random(given.seed), [], []
    with (
        PostgresServer(folder) as postgres,
        ValkeyServer(folder) as valkey,
        House(
            postgres.url, valkey.url, folder / "house", ios=0, wait=False, ingress_token="the-token-of-the-house"
        ) as house,
    ):
        house.wait_until_answering()
        house.until(lambda: house.ask("select count(*) from workers where open") == 1, "the ingress is open")
        with httpx.Client(base_url=house.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client:
            data = {"purpose": "batch"}
            file = client.post("/v1/files", files={"file": ("in.jsonl", b"{}\n")}, data=data).json()["id"]
            body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
            batch = client.post("/v1/batches", json=body).json()["id"]
        asyncio.run(block(house, batch, given.calls))
        for number in range(given.repeats):
            arms = [0, given.viewers]
            order.shuffle(arms)
            medians, idle = {}, {}
            for viewers in arms:
                with watched(house.url, batch, viewers):
                    medians[viewers] = asyncio.run(block(house, batch, given.calls))
                    if number < _SHARES:
                        idle[viewers] = asyncio.run(share(house, batch))
            pairs.append((medians[0], medians[given.viewers]))
            said = f"{pairs[-1][0]:.2f} ms, {pairs[-1][1]:.2f} ms watched"
            if idle:
                shares.append(idle[given.viewers] - idle[0])
                said += f", {1000 * shares[-1]:.1f} ms of CPU a second"
            print(f"[bench] repeat {number + 1}: {said}", flush=True)
    return pairs, shares


def main() -> None:
    """Measure, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("data/bench-viewers.json"))
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watch:
        asyncio.run(watch(*given.watch, given.viewers))
        return
    head = result.begin(given)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        pairs, shares = measure(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    grown = paired.ratios(pairs)
    alone, beside = (paired.median(list(side)) for side in zip(*pairs, strict=True))
    cpu = paired.median([1000 * one for one in shares])
    found = {
        "cpu_ms_a_second": cpu.json(),
        "alone_ms": alone.json(),
        "watched_ms": beside.json(),
        "ratio": grown.json(),
        "pairs": pairs,
    }
    result.write(given.json, head | found)
    Console().print(result.told(head))
    print(f"TTFT p50: {alone.text(2, 'ms')} with nobody, {beside.text(2, 'ms')} with {given.viewers} viewers")
    print(f"the API takes {cpu.text(1, 'ms')} of processor time a second more for them")
    print(f"paired: {grown.text(3)} times")
    sys.exit(grown.value >= MOST_GROWTH)


if __name__ == "__main__":
    stop.orderly(main)
