"""One tenant, or nobody, asks too much: others are not refused, have their turns, and memory stays bounded.

The rows of the table of attacks (docs/security.md), each with a bounded load. What is asserted is an order, not a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import aiohttp
import pytest
from e2e.live import chat
from faults.abuse import asks_call, asks_job, asks_page, beside, session, wrong_keys
from faults.house import House

pytestmark = pytest.mark.timeout(120)

TURNS = 12
SLOTS = 16
WAITS = 100
MOST_MIB = 100


@pytest.fixture(scope="module")
def house(build: Callable[..., House]) -> House:
    """One process of each kind, with few turns, slots and long polls."""
    return build(
        engine_arguments=["--latency-ms=20", f"--max-num-seqs={SLOTS}"],
        api_turns=f"{TURNS}",
        max_waits=f"{WAITS}",
        slice_lines="100",
    )


@pytest.fixture(autouse=True)
def bounded(house: House) -> Iterator[None]:
    """Whatever was asked, neither the API nor the worker grew by much, and both live."""
    asyncio.run(warm(house))
    names = ("api-1", "gpu-1")
    before = [house.peak_mib(name) for name in names]
    yield
    grown = [house.peak_mib(name) - was for name, was in zip(names, before, strict=True)]
    assert max(grown) < MOST_MIB
    assert all(house.lives(name) for name in house.residents)


async def warm(house: House) -> None:
    async with session(house, "victim") as ours:
        for ask in (asks_call("warm"), asks_job("warm"), asks_page("/v1/jobs")):
            async with await ask(ours) as response:
                assert response.status == 200


PROBES = {"job": asks_job(), "look": asks_page("/v1/batches"), "call": asks_call("mine")}


@pytest.mark.slow
def test_jobs_64_at_once(house: House) -> None:
    found = beside(house, asks_job("me first"), 64, PROBES, abuser="jobs")
    assert (found.victim.keys(), found.abuser.keys()) == ({200}, {200})
    assert found.worst() <= 2 * TURNS, found.between


def test_wrong_keys_64_at_once(house: House) -> None:
    found = beside(house, wrong_keys(), 64, PROBES, abuser=None)
    assert (found.victim.keys(), found.abuser.keys()) == ({200}, {401})
    assert found.worst() <= TURNS, found.between


@pytest.mark.slow
def test_lists_256_at_once(house: House) -> None:
    with_jobs = house.client_of("lists").http
    for n in range(50):
        with_jobs.post("/jobs", json={"body": {"model": "tiny", "messages": [{"role": "user", "content": f"{n}"}]}})
    found = beside(house, asks_page("/v1/jobs", limit="100"), 256, PROBES, abuser="lists")
    assert (found.victim.keys(), found.abuser.keys()) == ({200}, {200})
    assert found.worst() <= 2 * TURNS, found.between


@pytest.mark.slow
def test_calls_400_at_once_open_no_breaker_and_have_turns_as_all_requests_have(house: House) -> None:
    """An engine with room for all: what others wait for is the API, and its clock is the calls that it answers."""
    found = beside(house, asks_call("me first"), 400, PROBES, abuser="calls")
    assert found.victim.keys() == {200}, "nobody hears 503 since others ask much"
    assert found.abuser.keys() == {200}
    assert found.worst() <= 4 * TURNS, found.between


@pytest.mark.slow
def test_calls_400_at_once_wait_at_the_gate_behind_each_other(house: House) -> None:
    """An engine that is full: its clock is the places that become free."""
    found = beside(house, asks_call("me first [[sleep 100]]"), 400, {"call": PROBES["call"]}, abuser="calls")
    assert (found.victim.keys(), found.abuser.keys()) == ({200}, {200})
    assert found.worst() <= 4 * SLOTS, "at the gate the tenant with the fewest in flight is next"


@pytest.mark.slow
def test_calls_that_take_minutes_leave_slots_for_those_of_others(house: House) -> None:
    found = beside(
        house,
        asks_call("me for long [[sleep 600000]]"),
        3 * SLOTS,
        PROBES,
        abuser="long",
        at_work=lambda seen: in_flight(house) >= 3 * SLOTS,
    )
    assert found.victim.keys() == {200}
    assert not found.abuser, "all of its calls are still there"
    house.until(lambda: in_flight(house) == 0, "those who left hold nothing", 20)


def in_flight(house: House) -> int:
    """The waiting calls that the API has open."""
    page = house.client.http.get(f"{house.url}/metrics").text
    return int(
        float(next(line for line in page.splitlines() if line.startswith("penstock_calls_in_flight ")).split()[1])
    )


def test_long_polls_by_hundreds(house: House) -> None:
    asyncio.run(_polls(house))


async def _polls(house: House) -> None:
    """Of 300 at once as many wait as may; a victim's own poll is let in, and hears of its end at once."""
    async with session(house, "polls") as theirs, session(house, "victim") as ours:
        stuck = await made(theirs, "stuck [[sleep 600000]]")
        statuses: list[int] = []
        full = asyncio.Event()

        async def poll() -> None:
            async with theirs.get(f"/v1/jobs/{stuck}", params={"wait": "50"}) as response:
                statuses.append(response.status)
                if len(statuses) == 2 * WAITS:
                    full.set()
                assert response.status == 200 or "retry-after" in response.headers

        crowd = [asyncio.create_task(poll()) for _ in range(3 * WAITS)]
        try:
            await asyncio.wait_for(full.wait(), 30)
            for n in range(5):
                id = await made(ours, f"soon {n}")
                async with ours.get(f"/v1/jobs/{id}", params={"wait": "40"}) as response:
                    assert response.status == 200
                    assert (await response.json())["status"] == "completed", "it heard of its own end"
            assert statuses == [429] * 2 * WAITS, "its other polls wait still: no look of the victim's let them go"
        finally:
            for one in crowd:
                one.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
        async with theirs.post(f"/v1/jobs/{stuck}/cancel") as response:
            response.raise_for_status()


async def made(client: aiohttp.ClientSession, text: str) -> str:
    async with await asks_job(text)(client) as response:
        assert response.status == 200
        return str((await response.json())["id"])


@pytest.mark.slow
def test_small_jobs_pass_their_tenants_own_large_batch_and_another_tenants_jobs(house: House) -> None:
    asyncio.run(_small_jobs(house, large=2_000))


async def _small_jobs(house: House, large: int) -> None:
    """The batch takes a quarter of a minute; who posts a job then waits for a few of its lines, not for all."""
    owner = house.client_of("owner")
    batch = owner.submit([chat(f"{n}", f"say {n} [[sleep 100]]") for n in range(large)])
    owner.watched(batch.id, lambda one: bool(one.request_counts and one.request_counts.completed), "it runs", 60)

    def recorded() -> int:
        return int(house.ask("select coalesce(sum(completed), 0) from slices where batch = %s", batch.id))

    async with session(house, "owner") as ours, session(house, "victim") as theirs:
        before = recorded()
        for client in (ours, theirs):
            for id in [await made(client, f"small {n}") for n in range(10)]:
                async with client.get(f"/v1/jobs/{id}", params={"wait": "50"}) as response:
                    assert (await response.json())["status"] == "completed"
        assert recorded() - before < large // 4
    owner.http.post(f"/batches/{batch.id}/cancel").raise_for_status()
    owner.ended(batch.id)


def test_a_backlog_of_one_tenants_small_jobs_is_not_waited_for_by_anothers(house: House) -> None:
    asyncio.run(_backlog(house, many=400))


async def _backlog(house: House, many: int) -> None:
    async with session(house, "backlog") as theirs, session(house, "victim") as ours:
        await asyncio.gather(*(made(theirs, f"me first {n} [[sleep 200]]") for n in range(many)))

        def ended() -> int:
            query = "select count(*) from batches where tenant = 'backlog' and state = 'completed'"
            return int(house.ask(query))

        before = ended()
        id = await made(ours, "one")
        async with ours.get(f"/v1/jobs/{id}", params={"wait": "50"}) as response:
            assert (await response.json())["status"] == "completed"
        assert ended() - before < many // 4
        house.until(lambda: ended() == many, "and all of theirs are answered, too", 60)
