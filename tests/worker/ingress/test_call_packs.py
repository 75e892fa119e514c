"""Waiting calls for embeddings and scores that come together are one request, and each is answered as if it had been
asked alone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from worker.engines import engine_pid, wait_ready
from worker.ingresses import CHAT, Caller, Site, calling, chat, site, soon

from penstock_worker.engine.echo.answers import counted, tokens_of, vector_of
from penstock_worker.engine.token_counter import TokenCounter

EMBEDDINGS = "/v1/embeddings"
SCORE = "/v1/score"
SLOW = {"model": "echo", "input": "first [[sleep 700]]"}
"""While two of these are in the engine others of their kind wait for one another."""


@pytest.fixture(scope="module")
def shared(short_dir: Path) -> Iterator[Site]:
    """An ingress where calls wait for others for as long as two are in the engine."""
    with site(short_dir, "--max-num-seqs=256", call_pack_seconds=1.0) as one:
        yield one


@pytest.fixture(autouse=True)
def fresh_counter(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test made of the engine's counter, the next one has a new one."""
    if "shared" not in request.fixturenames:
        yield
        return
    supervisor = request.getfixturevalue("shared").supervisor
    own = supervisor.launch
    supervisor.launch = dataclasses.replace(own, token_counter=TokenCounter(lambda: counted))
    yield
    supervisor.launch = own


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "echo", "input": content, **more}


async def ask(caller: Caller, body: Any, endpoint: str = EMBEDDINGS, **more: str) -> tuple[int, dict[str, Any]]:
    async with caller.call(body, endpoint, **more) as response:
        return response.status, json.loads(await response.read() or b"{}")


async def beside(caller: Caller, bodies: Sequence[Any], first: Any = SLOW, **more: Any) -> list[tuple[int, Any]]:
    """What all are told that come while two of their kind are in the engine."""
    slow = await two(caller, first, **more)
    told = await asyncio.gather(*(ask(caller, body, **more) for body in bodies))
    assert [status for status, _ in await slow] == [200, 200]
    return list(told)


async def two(caller: Caller, body: Any = SLOW, others: int = 0, **more: Any) -> asyncio.Future[list[tuple[int, Any]]]:
    """Two calls that are in the engine now, as `others` are."""
    slow = asyncio.gather(*(ask(caller, body, **more) for _ in range(2)))
    while running((await caller.get("/metrics"))[1]) < 2 + others:  # noqa: ASYNC110 - another process's number
        await asyncio.sleep(0.01)
    return slow


def running(page: str) -> float:
    """Requests in the engine."""
    return next(float(row.split()[-1]) for row in page.splitlines() if row.startswith("vllm:num_requests_running{"))


def requests(told: Sequence[tuple[int, Any]]) -> Counter[str]:
    """The engine's requests that answers came with, and how many of these each had; one alone has its call's id."""
    ids = [body["id"].split("-") for status, body in told if status == 200]
    return Counter(parts[1] for parts in ids if len(parts) == 3)


def same(body: dict[str, Any]) -> dict[str, Any]:
    """Without what no two answers of an engine share."""
    return {name: value for name, value in body.items() if name not in ("id", "created")}


def test_calls_that_come_while_two_are_in_the_engine_are_one_request_with_an_answer_each(shared: Site) -> None:
    texts = [f"text {n} " + "word " * (n % 9) for n in range(20)]

    async def both(caller: Caller) -> None:
        told = await beside(caller, [text(one) for one in texts])
        assert list(requests(told).values()) == [20]
        alone = [await ask(caller, text(one)) for one in texts]
        assert not requests(alone)
        assert [(status, same(body)) for status, body in told] == [(status, same(body)) for status, body in alone]
        assert [body["usage"]["prompt_tokens"] for _, body in told] == [tokens_of(one) for one in texts]
        assert len({body["id"] for _, body in told}) == 20
        assert not shared.gate.in_flight
        assert not shared.ingress.holds

    calling(shared.ingress.url, both)


def test_scores_of_pairs_go_together_too(shared: Site) -> None:
    pairs = [{"model": "echo", "text_1": f"which {n}", "text_2": f"the mill {n}"} for n in range(8)]

    async def both(caller: Caller) -> None:
        slow = {"model": "echo", "text_1": "first", "text_2": "second [[sleep 700]]"}
        told = await beside(caller, pairs, slow, endpoint=SCORE)
        assert list(requests(told).values()) == [8]
        alone = [await ask(caller, one, SCORE) for one in pairs]
        assert [same(body) for _, body in told] == [same(body) for _, body in alone]

    calling(shared.ingress.url, both)


def test_what_the_engine_refuses_is_told_that_call_alone(shared: Site) -> None:
    bodies = [text(f"text {n}" + " [[status 400]]" * (n in (3, 11))) for n in range(16)]

    async def some(caller: Caller) -> None:
        told = await beside(caller, bodies)
        assert [n for n, (status, _) in enumerate(told) if status != 200] == [3, 11]
        assert "error" in told[3][1]
        assert max(requests(told).values()) >= 4
        assert [body["usage"]["prompt_tokens"] for n, (_, body) in enumerate(told) if n not in (3, 11)] == [
            tokens_of(body["input"]) for n, body in enumerate(bodies) if n not in (3, 11)
        ]

    calling(shared.ingress.url, some)


@pytest.mark.parametrize("failure", ["[[status 500]]", "[[status 429]]", "[[break]]"])
def test_after_a_failure_that_says_nothing_of_an_input_each_is_asked_alone(shared: Site, failure: str) -> None:
    bodies = [text(f"text {n}" + f" {failure}" * (n == 2)) for n in range(6)]

    async def some(caller: Caller) -> None:
        told = await beside(caller, bodies)
        assert [n for n, (status, _) in enumerate(told) if status != 200] == [2]
        assert not requests(told)

    calling(shared.ingress.url, some)


def test_only_calls_of_one_tenant_that_ask_the_same_go_together(shared: Site) -> None:
    bodies = [
        *(text(f"plain {n}") for n in range(3)),
        *(text(f"packed {n}", encoding_format="base64") for n in range(3)),
        *(text(f"cut {n}", truncate_prompt_tokens=9) for n in range(2)),
        text(["a", "list"]),
        text("long " * 1_000),
    ]

    async def some(caller: Caller) -> None:
        kinds: list[tuple[str, str, dict[str, Any]]] = [
            ("one", "default", {}),
            ("two", "default", {}),
            ("one", "flex", {}),
            ("one", "default", {"encoding_format": "base64"}),
        ]
        slow = await asyncio.gather(
            *(two(caller, SLOW | more, others=6, tenant=of, tier=tier) for of, tier, more in kinds)
        )
        mine = asyncio.gather(*(ask(caller, body, tenant="one") for body in bodies))
        theirs = asyncio.gather(*(ask(caller, text(f"two {n}"), tenant="two") for n in range(4)))
        later = asyncio.gather(*(ask(caller, text(f"flex {n}"), tenant="one", tier="flex") for n in range(2)))
        told = await mine
        assert {status for status, _ in told} == {200}
        assert [list(requests(some).values()) for some in (told[:3], told[3:6], told[6:])] == [[3], [3], []]
        assert list(requests(await theirs).values()) == [4]
        assert list(requests(await later).values()) == [2]
        assert isinstance(told[3][1]["data"][0]["embedding"], str)
        await asyncio.gather(*slow)

    calling(shared.ingress.url, some)


def test_a_pack_has_a_bound_of_calls_and_of_tokens(short_dir: Path) -> None:
    async def some(caller: Caller) -> None:
        told = await beside(caller, [text(f"text {n}") for n in range(10)])
        assert sorted(requests(told).values()) == [2, 4, 4]
        told = await beside(caller, [text("x" * 200) for _ in range(5)])  # 50 tokens each, about
        assert sorted(requests(told).values()) == [2, 2]

    with site(short_dir, "--max-num-seqs=64", call_pack_seconds=1.0, pack_lines=4, pack_tokens=100) as its:
        calling(its.ingress.url, some)


def test_one_after_the_other_waits_for_nobody_and_who_waits_does_so_for_its_bound_at_most(short_dir: Path) -> None:
    async def some(caller: Caller) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        told = [await ask(caller, text(f"text {n}")) for n in range(20)]
        told += await asyncio.gather(*(ask(caller, text(f"both {n}")) for n in range(2)))
        assert not requests(told)
        assert loop.time() - began < 20 * 0.5
        stuck = await two(caller, text("stuck [[hang]]"))
        told = list(await asyncio.gather(*(ask(caller, text(f"text {n}")) for n in range(4))))
        assert list(requests(told).values()) == [4]  # although those never end
        stuck.cancel()

    with site(short_dir, "--max-num-seqs=64", call_pack_seconds=0.5) as its:
        calling(its.ingress.url, some)


@pytest.mark.parametrize("off", [{"call_pack_seconds": 0.0}, {"pack_lines": 1}])
def test_it_can_be_switched_off(short_dir: Path, off: dict[str, Any]) -> None:
    with site(short_dir, "--max-num-seqs=64", **off) as its:
        told = calling(its.ingress.url, lambda caller: beside(caller, [text(f"text {n}") for n in range(4)]))
    assert ({status for status, _ in told}, not requests(told)) == ({200}, True)


def test_an_engine_that_takes_no_lists_or_counts_otherwise_gets_each_alone(shared: Site) -> None:
    async def some(caller: Caller) -> list[tuple[int, Any]]:
        return await beside(caller, [text(f"text {n}") for n in range(4)])

    own = shared.supervisor.launch
    shared.supervisor.launch = dataclasses.replace(own, profile=own.profile.without("lists"))
    told = calling(shared.ingress.url, some)
    assert ([status for status, _ in told], not requests(told)) == ([200] * 4, True)
    other = TokenCounter(lambda: lambda inputs: [7 for _ in inputs])
    shared.supervisor.launch = dataclasses.replace(own, token_counter=other)
    told = calling(shared.ingress.url, some)
    assert ([status for status, _ in told], not requests(told)) == ([200] * 4, True)
    assert [body["usage"]["prompt_tokens"] for _, body in told] == [tokens_of(f"text {n}") for n in range(4)]
    assert other.doubted


def test_who_leaves_costs_the_others_nothing_and_once_all_have_left_the_engine_hears_of_it(shared: Site) -> None:
    async def some(caller: Caller) -> None:
        slow = await two(caller)
        waiting = [asyncio.create_task(ask(caller, text(f"text {n} [[sleep 600]]"))) for n in range(5)]
        await soon(lambda: shared.ingress.calls == 7)
        waiting[0].cancel()  # before it is asked
        await slow
        await soon(lambda: shared.metric("vllm:num_requests_running") == 1)
        waiting[1].cancel()  # after it was asked
        told = list(await asyncio.gather(*waiting[2:]))
        assert list(requests(told).values()) == [3]
        aborted = shared.metric("echo:requests_aborted")
        slow = await two(caller)
        leaving = [asyncio.create_task(ask(caller, text(f"text {n} [[hang]]"))) for n in range(3)]
        await slow
        await soon(lambda: shared.metric("vllm:num_requests_running") == 1)
        for one in leaving:
            one.cancel()
        await soon(lambda: shared.metric("echo:requests_aborted") == aborted + 1)
        await soon(lambda: not shared.ingress.holds and not shared.gate.in_flight)

    calling(shared.ingress.url, some)


def test_of_an_engine_that_dies_each_hears_and_chats_go_their_own_way(short_dir: Path) -> None:
    async def some(caller: Caller) -> None:
        slow = await two(caller)
        bodies = [text(f"text {n}" + " [[die]]" * (n == 1)) for n in range(3)]
        waiting = [caller.refusal(body, endpoint=EMBEDDINGS, id=f"call-{n}") for n, body in enumerate(bodies)]
        told = asyncio.gather(*waiting)
        assert await caller.refusal(chat("hi")) == (200, None)
        assert await told == [(503, "engine-died")] * 3
        await slow
        assert (await caller.get("/calls/call-0"))[1]["outcome"] == "engine-died"

    with site(short_dir, "--max-num-seqs=64", call_pack_seconds=1.0) as its:
        pid = engine_pid(its.supervisor)
        calling(its.ingress.url, some)
        wait_ready(its.supervisor, 60)
        assert engine_pid(its.supervisor) != pid
        assert (calling(its.ingress.url, lambda caller: ask(caller, text("again"))))[0] == 200
        assert its.ingress.outcomes.find("call-2")


def test_the_metrics_count_them(shared: Site) -> None:
    async def some(caller: Caller) -> tuple[str, str]:
        before = (await caller.get("/metrics"))[1]
        await beside(caller, [text(f"text {n}") for n in range(5)])
        await ask(caller, chat("hi"), CHAT)
        return before, (await caller.get("/metrics"))[1]

    before, after = (
        next(
            float(row.split()[1]) for row in page.splitlines() if row.startswith("penstock_ingress_packed_calls_total")
        )
        for page in calling(shared.ingress.url, some)
    )
    assert after - before == 5


@pytest.mark.parametrize("seed", [1, 2])
def test_whoever_leaves_or_fails_among_hundreds_each_of_the_others_has_its_own_answer(
    short_dir: Path, seed: int
) -> None:
    chance, told, left = random.Random(seed), Counter[str](), 0

    async def one(caller: Caller, number: int) -> None:
        nonlocal left
        faults = ["[[status 400]]", "[[status 429]]", "[[status 500]]", "[[break]]", "[[sleep 50]]"]
        fault = chance.choice([*[""] * 12, *faults])
        asked = text(f"text {number} {'word ' * chance.randint(0, 30)}{fault}")
        whose = {"tenant": chance.choice("ab"), "tier": chance.choice(["default", "flex"])}
        await asyncio.sleep(chance.random() / 4)
        try:
            async with asyncio.timeout(chance.choice([30, 30, 30, chance.random() / 10])):
                status, answer = await ask(caller, asked, **whose)
        except (TimeoutError, aiohttp.ClientError):
            left += 1
            return
        told[f"{fault} {status}"] += 1
        if status == 200:
            assert answer["usage"]["prompt_tokens"] == tokens_of(asked["input"])
            assert answer["data"][0]["embedding"] == pytest.approx(vector_of(asked["input"]))

    async def crowd(caller: Caller) -> None:
        await asyncio.gather(*(one(caller, number) for number in range(400)))
        await soon(lambda: not its.ingress.holds and not its.gate.in_flight)
        page = (await caller.get("/metrics"))[1]
        assert "penstock_ingress_packed_calls_total 0.0" not in page

    with site(short_dir, "--max-num-seqs=512", "--latency-ms=20") as its:
        calling(its.ingress.url, crowd)
    right = {
        " 200",
        "[[sleep 50]] 200",
        "[[status 400]] 400",
        "[[status 429]] 429",
        "[[status 500]] 500",
        "[[break]] 503",
    }
    assert set(told) == right
    assert 0 < left < 200
