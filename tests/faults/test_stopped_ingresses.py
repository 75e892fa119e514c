"""A worker that is told to end takes no new calls, lets those inside finish within its grace, and ends in any case."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.live import chat
from faults.house import INGRESS_TOKEN, MODEL, House
from faults.proxy import Proxy
from faults.servers import PostgresServer, ValkeyServer
from worker.ingresses import Caller, caller
from worker.ingresses import chat as call_body

pytestmark = pytest.mark.timeout(240)

GRACE_SECONDS = 8.0


@dataclass
class Site:
    """A house of one gpu worker, whose streams have a token every 50 ms, and its two servers."""

    house: House
    network: Proxy
    """Between the worker and Postgres."""
    valkey: ValkeyServer

    def hang(self, server: str) -> None:
        """Nothing is answered there any more."""
        if server == "postgres":
            self.network.hang()
        else:
            self.valkey.stop()

    def heal(self) -> None:
        self.network.heal()
        self.valkey.cont()


@pytest.fixture(scope="module")
def site(short_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = short_dir / "ingresses"
    folder.mkdir()
    with PostgresServer(folder) as postgres, Proxy(postgres.socket) as network, ValkeyServer(folder) as valkey:
        house = House(
            postgres.url,
            valkey.url,
            tmp_path_factory.mktemp("ingresses"),
            engine_arguments=["--itl-ms=50", "--max-num-seqs=8"],
            ingress_grace_seconds=f"{GRACE_SECONDS}",
            own={"gpu-1": {"database_url": postgres.proxied(network.port)}},
        )
        with house:
            yield Site(house, network, valkey)
            valkey.cont()


@pytest.fixture
def house(site: Site) -> House:
    """Everybody runs."""
    site.heal()
    if not site.house.lives("gpu-1"):
        site.house.start("gpu-1")
    site.house.wait_until_ready()
    return site.house


def ingress(house: House) -> str:
    """Where the worker that runs now takes calls, once it is open."""
    query = "select ingress_url from workers where id = %s and open and state = 'ready'"
    return str(house.until(lambda: house.ask(query, house.holder("gpu-1")), "the ingress is open"))


def calling(house: House, do: Callable[[Caller], Any]) -> None:
    async def run() -> None:
        async with caller(ingress(house)) as one:
            await asyncio.wait_for(do(one), 60)

    asyncio.run(run())


def stream(text: str) -> dict[str, Any]:
    return call_body(text, stream=True) | {"model": MODEL}


async def draining(caller: Caller) -> None:
    """Return once the ingress says that its worker ends."""
    said = None
    while said != "draining":
        async with caller.call(stream("hi"), token=INGRESS_TOKEN) as response:
            said = response.headers.get("x-penstock-refusal")


def test_streams_finish_new_calls_are_refused_and_the_process_ends(house: House) -> None:
    holder = house.holder("gpu-1")

    async def end(caller: Caller) -> None:
        async with caller.call(stream("hi [[tokens 80]]"), token=INGRESS_TOKEN) as response:
            await response.content.readuntil(b"\n\n")
            house.terminate("gpu-1")
            await draining(caller)
            state = "select state from workers where id = %s"
            await asyncio.to_thread(house.until, lambda: house.ask(state, holder) == "draining", "it says so", 5.0)
            assert (await response.read()).endswith(b"data: [DONE]\n\n")

    calling(house, end)
    assert house.wait("gpu-1", 15) == 0
    assert house.ask("select state from workers where id = %s", holder) == "gone"


@pytest.mark.slow
def test_a_stream_that_is_longer_than_the_grace_is_cut_and_the_process_still_ends(house: House) -> None:
    async def end(caller: Caller) -> None:
        async with caller.call(stream("hi [[tokens 10000]]"), token=INGRESS_TOKEN) as response:
            await response.content.readuntil(b"\n\n")
            at = time.monotonic()
            house.terminate("gpu-1")
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            assert time.monotonic() - at >= GRACE_SECONDS

    calling(house, end)
    assert house.wait("gpu-1", 15) == 0


@pytest.mark.slow
def test_slices_are_given_back_at_once_while_streams_go_on(house: House) -> None:
    async def end(caller: Caller) -> None:
        async with caller.call(stream("hi [[tokens 80]]"), token=INGRESS_TOKEN) as response:
            await response.content.readuntil(b"\n\n")
            holder = house.holder("gpu-1")
            held = "select count(*) from leases where holder = %s and closed_at is null"
            batch = await asyncio.to_thread(house.client.submit, [chat(f"{n}", f"{n} [[hang]]") for n in range(4)])
            await asyncio.to_thread(house.until, lambda: house.ask(held, holder), "it has a slice")
            house.terminate("gpu-1")
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
            await asyncio.to_thread(house.client.sdk.batches.cancel, batch.id)

    calling(house, end)
    assert house.wait("gpu-1", 30) == 0
    assert house.ask("select count(*) from leases where closed_at is null") == 0


@pytest.mark.slow
@pytest.mark.parametrize("away", ["postgres", "valkey"])
def test_it_ends_also_while_a_server_hangs(house: House, site: Site, away: str) -> None:
    async def end(caller: Caller) -> None:
        async with caller.call(stream("hi [[tokens 80]]"), token=INGRESS_TOKEN) as response:
            await response.content.readuntil(b"\n\n")
            site.hang(away)
            house.terminate("gpu-1")
            await draining(caller)
            assert (await response.read()).endswith(b"data: [DONE]\n\n"), "the stream is not disturbed"

    calling(house, end)
    assert house.wait("gpu-1", 60) == 0


def test_a_worker_that_is_killed_leaves_no_stream_hanging(house: House) -> None:
    async def end(caller: Caller) -> None:
        async with caller.call(stream("hi [[tokens 10000]]"), token=INGRESS_TOKEN) as response:
            await response.content.readuntil(b"\n\n")
            with suppress(ProcessLookupError):
                os.kill(house.pid("gpu-1"), signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await response.read()

    calling(house, end)
    house.wait("gpu-1")
