"""`make bench-idle`: what one API process holds for idle streams, 1,000 that said two words and then nothing.

It starts a house with one API and one worker on the echo engine (simulated), opens the streams, and looks at the API's
resident memory and CPU time while they stand still. It fails if memory grows while nothing happens, if another call
takes long beside them, or if a stream is not served to its end when its client leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from bench import stop
from e2e.live import CHAT, until
from faults.house import KEY, MODEL, House
from faults.servers import PostgresServer, ValkeyServer

MIB = 1024 * 1024


async def begin(session: aiohttp.ClientSession, url: str, n: int) -> aiohttp.ClientResponse:
    """One stream, when its first bytes are here."""
    messages = [{"role": "user", "content": f"idle {n} [[stall-after 2]]"}]
    answer = await session.post(f"{url}{CHAT}", json={"model": MODEL, "messages": messages, "stream": True})
    assert answer.status == 200, await answer.text()
    await answer.content.readany()
    return answer


async def beside(session: aiohttp.ClientSession, url: str) -> float:
    """Milliseconds of a short call beside them, the median of 50."""
    taken = []
    for n in range(50):
        began = time.perf_counter()
        messages = [{"role": "user", "content": f"short {n}"}]
        async with session.post(f"{url}{CHAT}", json={"model": MODEL, "messages": messages}) as answer:
            assert answer.status == 200
            await answer.read()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[25] * 1000


async def measure(house: House, streams: int, seconds: float) -> dict[str, Any]:
    """Open, wait, close."""
    api = psutil.Process(house.pid("api-1"))
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=aiohttp.ClientTimeout(total=None)
    ) as session:
        alone_ms = await beside(session, house.url)
        before = api.memory_info().rss
        held: list[aiohttp.ClientResponse] = []
        for start in range(0, streams, 100):
            batch = range(start, min(streams, start + 100))
            held += await asyncio.gather(*(begin(session, house.url, n) for n in batch))
        first, cpu = api.memory_info().rss, api.cpu_times()
        await asyncio.sleep(seconds)
        last, cpu_after = api.memory_info().rss, api.cpu_times()
        beside_ms = await beside(session, house.url)
        for one in held:
            one.close()
    return {
        "streams": streams,
        "seconds": seconds,
        "rss_before_mib": round(before / MIB, 1),
        "rss_with_streams_mib": round(first / MIB, 1),
        "rss_after_waiting_mib": round(last / MIB, 1),
        "grown_while_idle_mib": round((last - first) / MIB, 1),
        "kib_a_stream": round((first - before) / streams / 1024, 1),
        "idle_cpu_share": round((cpu_after.user + cpu_after.system - cpu.user - cpu.system) / seconds, 4),
        "call_alone_ms": round(alone_ms, 2),
        "call_beside_ms": round(beside_ms, 2),
    }


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ps-") as folder:
        own = Path(folder)
        with (
            PostgresServer(own) as server,
            ValkeyServer(own) as valkey,
            House(
                server.url,
                valkey.url,
                own / "house",
                engine_arguments=[f"--max-num-seqs={options.streams + 100}"],
                ingress_token="the-token-of-the-house",
                tenant_calls=str(options.streams + 100),
            ) as house,
        ):
            count = "select count(*) from workers where open"
            house.until(lambda: house.ask(count) == 1, "the ingress is open")
            found = asyncio.run(measure(house, options.streams, options.seconds))
            socket = house.engine_socket("gpu-1")
            until(lambda: asyncio.run(running(socket)) == 0, "the engine heard that all clients left")
    print(json.dumps(found, indent=2))
    grown = found["grown_while_idle_mib"]
    assert grown < 5, f"memory grew by {grown:.1f} MiB while nothing happened"


async def running(socket: Path) -> float:
    """How many requests the engine runs."""
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://engine/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))


if __name__ == "__main__":
    stop.orderly(main)
