"""Workers that an operator drains, restarts and watches: nothing is lost, and nothing is asked twice without need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.live import chat
from faults.house import KEY, House
from faults.load import Load, check

pytestmark = pytest.mark.timeout(180)

GONE_SECONDS = 3.0
LATENCY_SECONDS = 0.15


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """Two gpu workers that beat often."""
    return build(
        gpus=2,
        engine_arguments=[f"--journal={journal}", "--max-num-seqs=8", f"--latency-ms={LATENCY_SECONDS * 1000:g}"],
        beat_seconds="0.5",
        worker_gone_seconds=f"{GONE_SECONDS:g}",
        flush_seconds="0.2",
        slice_lines="10",
        close_grace_seconds="1",
        hint_again_seconds="60",  # a hint that a drained worker took from the others would be missed
        poll_seconds="60",
    )


@pytest.fixture(scope="module")
def operator(house: House) -> Iterator[httpx.Client]:
    """A client with an operator's key."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=f"{house.url}/v1", headers=headers, timeout=30, trust_env=False) as one:
        yield one


def seen(operator: httpx.Client, id: object) -> dict[str, Any]:
    """A worker as it stands now."""
    return operator.get(f"/workers/{id}").raise_for_status().json()


def tell(operator: httpx.Client, id: object, order: str) -> None:
    """Give a worker an order."""
    operator.post(f"/workers/{id}/{order}").raise_for_status()


def stands(house: House, operator: httpx.Client, id: object, state: str) -> dict[str, Any]:
    """Wait until a worker stands so, and has done all that it was told."""
    house.until(lambda: (now := seen(operator, id))["state"] == state and not now["orders"], f"{id} is {state}")
    return seen(operator, id)


def has_work(house: House, holder: object) -> None:
    """Wait until a worker holds a slice."""
    house.until(lambda: leases(house, holder, "closed_at is null"), f"{holder} has work")


def leases(house: House, holder: object, which: str = "true") -> int:
    """How many leases a worker has had of that kind."""
    return int(house.ask(f"select count(*) from leases where holder = %s and {which}", holder))


def test_a_worker_that_is_drained_under_load_ends_what_it_holds_and_takes_nothing_until_it_is_undrained(
    house: House, operator: httpx.Client, journal: Path
) -> None:
    drained, other = house.holder("gpu-1"), house.holder("gpu-2")
    load = Load.submit(house, "drained", 200)
    has_work(house, drained)
    tell(operator, drained, "drain")
    assert stands(house, operator, drained, "drained")["load"]["leases"] == 0
    had = leases(house, drained)
    load.has_each_answer_once(house)
    assert not load.asked_again(journal)
    assert leases(house, drained) == had, "it has claimed nothing since"
    assert leases(house, drained, "closed_as <> 'settled'") == 0, "what it held went on to its end"
    assert house.lives("gpu-1")

    tell(operator, other, "drain")
    stands(house, operator, other, "drained")
    call = {"model": house.model, "messages": [{"role": "user", "content": "hello"}]}
    refused = operator.post("/chat/completions", json=call)
    assert refused.status_code == 503, "no worker takes waiting calls"
    waiting = Load.submit(house, "undrained", 20)
    house.until(lambda: house.ask("select count(*) from slices where batch = %s", waiting.id), "it is planned")
    tell(operator, drained, "undrain")
    waiting.has_each_answer_once(house)
    assert leases(house, other, f"batch = '{waiting.id}'") == 0
    tell(operator, other, "undrain")
    stands(house, operator, other, "ready")
    check(house)


def test_a_restart_gives_a_new_engine_to_the_same_worker_and_blames_no_line(
    house: House, operator: httpx.Client, journal: Path
) -> None:
    restarted = house.holder("gpu-1")
    engine, pid = house.engine("gpu-1")[-1], house.pid("gpu-1")
    load = Load.submit(house, "restarted", 120)
    has_work(house, restarted)
    for _ in range(2):  # asked twice before it is heard, it is one restart
        tell(operator, restarted, "restart")
    stands(house, operator, restarted, "ready")
    assert (house.engine("gpu-1")[-1] != engine, house.pid("gpu-1")) == (True, pid)
    load.has_each_answer_once(house)
    assert not load.asked_again(journal), "its answers take less than the grace"
    assert leases(house, restarted, "closed_as not in ('settled', 'released')") == 0
    assert house.ask("select count(*) from suspects") == 0
    assert house.ask("select restarts_done from workers where id = %s", restarted) == 1
    log = (house.logs / "gpu-1.log").read_text()
    assert log.count("engine_restart") == 1
    assert "engine_died" not in log
    check(house)


def test_a_line_that_hangs_is_given_back_by_a_restart_after_its_grace_and_is_no_suspect(
    house: House, operator: httpx.Client, journal: Path
) -> None:
    load = Load("hanging", 1, house.client.submit([chat("hanging-1", "line 1 of hanging. [[hang]]")]).id)
    house.until(lambda: load.asked(journal), "it is asked")
    holder = house.ask("select holder from leases where batch = %s and kind = 'slice'", load.id)
    tell(operator, holder, "restart")
    house.until(lambda: load.asked_again(journal) == {1: 2}, "it is asked again")
    assert house.ask("select count(*) from suspects") == 0
    assert house.ask("select sum(crashes) from slices where batch = %s", load.id) == 0
    stands(house, operator, holder, "ready")
    house.client.sdk.batches.cancel(load.id)
    assert house.client.ended(load.id).status == "cancelled"
    check(house)


def test_a_drained_worker_whose_engine_is_restarted_stays_drained_and_an_io_worker_is_drained_too(
    house: House, operator: httpx.Client
) -> None:
    gpu, io = house.holder("gpu-1"), house.holder("io-1")
    tell(operator, gpu, "drain")
    tell(operator, gpu, "restart")
    stands(house, operator, gpu, "drained")
    tell(operator, gpu, "undrain")
    stands(house, operator, gpu, "ready")
    tell(operator, io, "drain")
    stands(house, operator, io, "drained")
    load = Load.submit(house, "unvalidated", 10)
    house.until(lambda: house.ask("select hinted_at is not null from batches where id = %s", load.id), "it is hinted")
    assert leases(house, io, f"batch = '{load.id}'") == 0
    tell(operator, io, "undrain")
    load.has_each_answer_once(house)
    check(house)


def test_a_worker_that_is_killed_is_lost_and_one_that_ends_is_gone(house: House, operator: httpx.Client) -> None:
    killed, ended = house.holder("gpu-1"), house.holder("gpu-2")
    house.kill("gpu-1")
    at = time.monotonic()
    lost = house.until(lambda: (now := seen(operator, killed))["state"] == "lost" and now, "it is lost")
    print(f"lost after {time.monotonic() - at:.1f} s of silence")
    assert lost["last_seen_seconds"] >= GONE_SECONDS
    assert "gone, or cut off" in lost["trouble"]
    assert lost["load"] is None
    house.terminate("gpu-2")
    house.wait("gpu-2")
    assert seen(operator, ended)["state"] == "gone"
    listed = {one["id"]: one["state"] for one in operator.get("/workers", params={"limit": 100}).json()["data"]}
    assert (listed[str(killed)], str(ended) in listed) == ("lost", False)
    assert operator.post(f"/workers/{ended}/drain").status_code == 409
