"""What an engine lacks is done without: one test for each lack, on echo engines that are without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from worker.engines import echo_launch, wait_ready
from worker.ingresses import Caller, Site, calling, chat, site, soon

from penstock.domain.engines.profile import EngineLack
from penstock.domain.work.lane import Lane
from penstock.domain.work.rank import Rank
from penstock.domain.work.slice import Claim
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock_worker.budget.budget_loop import BudgetLoop
from penstock_worker.budget.latency import Latencies
from penstock_worker.engine.client import EngineClient, EngineTimeout
from penstock_worker.engine.process import probe
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip, now
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.reuse import each

CHAT = "/v1/chat/completions"
ALL_BUT_ABORT = "--lacks=" + ",".join(lack for lack in EngineLack if lack is not EngineLack.ABORT)


@pytest.fixture(scope="module")
def poor(short_dir: Path) -> Iterator[Site]:
    """An engine that lacks everything, but notices who leaves; what it does not know in a request it refuses."""
    with site(short_dir, ALL_BUT_ABORT, "--max-num-seqs=4") as one:
        yield one


@pytest.fixture(scope="module")
def deaf(short_dir: Path) -> Iterator[Site]:
    """An engine that does not notice who leaves."""
    with site(short_dir, "--lacks=abort", "--max-num-seqs=1", "--itl-ms=10") as one:
        yield one


def fed(engine: EngineContext, *texts: str) -> tuple[LineFeed, Grip]:
    """A slice with a line for each text, on its way."""
    grip = Grip(1, now() + 60)
    claim = Claim(
        slice=1, lease=1, batch="batch_1", tenant="one", endpoint=CHAT, model="echo", lane=Lane.STANDARD,
        deadline=datetime(2030, 1, 1, tzinfo=UTC), tokens=1, plan_key=None, plan_offset=0, plan_bytes=0, inline=b"",
        lines=len(texts), first_line=1, last_line=len(texts), recorded=frozenset(), suspects={}, crashes=0,
    )  # fmt: skip
    lines = [Line(number, f"c{number}", CHAT, json.dumps(chat(text)).encode()) for number, text in enumerate(texts, 1)]
    return LineFeed(engine, claim, each(lines), grip), grip


def answers(engine: EngineContext, *texts: str) -> list[Record]:
    """What became of these lines, in the order in which they came back."""
    feed, grip = fed(engine, *texts)
    records: list[Record] = []
    while not feed.done:
        assert grip.news.wait(20)
        grip.news.clear()
        records += feed.collect()
    assert feed.error is None
    return records


def said(record: Record) -> dict:
    return json.loads(record.line)["response"]


def test_without_priority_and_salt_lines_and_calls_say_neither_whatever_their_senders_wrote(poor: Site) -> None:
    assert [said(record)["status_code"] for record in answers(poor.engine, "one", "two")] == [200, 200]

    async def ask(caller: Caller) -> None:
        for salt in ({}, {"cache_salt": "f" * 32}):  # as the API sends it
            assert await caller.refusal(chat("hi", **salt)) == (200, None)

    calling(poor.ingress.url, ask)


def test_without_priority_the_gate_keeps_slots_for_calls_that_no_line_gets(poor: Site) -> None:
    feed, _ = fed(poor.engine, *["[[hang]]"] * 9)

    async def ask(caller: Caller) -> None:
        await soon(lambda: poor.gate.waiting(Rank.STANDARD) > 0)  # all lines that may be in the engine are
        assert poor.gate.lines < poor.gate.slots
        assert await caller.refusal(chat("hi")) == (200, None)

    try:
        calling(poor.ingress.url, ask)
    finally:
        feed.cancel()
        poor.loop.run(asyncio.sleep(0)).result(5)


def test_without_request_ids_a_line_is_recorded_with_the_id_that_the_engine_gave_it(poor: Site, deaf: Site) -> None:
    [record] = answers(poor.engine, "who")
    assert said(record)["body"]["id"] == f"chatcmpl-{said(record)['request_id']}"
    [ours] = answers(deaf.engine, "who")
    assert said(ours)["body"]["id"] == f"chatcmpl-{said(ours)['request_id']}"
    assert len(said(record)["request_id"]) == 16 < len(said(ours)["request_id"]), "one is the engine's, one is ours"


def test_without_a_tokenizer_it_has_no_such_page(poor: Site) -> None:
    async def ask(caller: Caller) -> None:
        async with caller.call({"model": "echo", "prompt": "hi"}, endpoint="/tokenize") as answer:
            assert answer.status == 404

    calling(poor.ingress.url, ask)


def test_without_metrics_the_budget_looks_at_no_page_and_follows_what_lines_meet(poor: Site) -> None:
    engine = poor.engine
    launch = engine.supervisor.launch
    assert probe.get(launch.socket, "/metrics", 5.0)[0] == 404  # type: ignore[index] # it answers
    loop = BudgetLoop(
        engine.gate, engine.client, Latencies(), engine.settings,
        load=launch.profile.load, backpressure=engine.backpressure,
    )  # fmt: skip

    async def step(seconds_per_token: float) -> int:
        for _ in range(8):
            engine.backpressure.answered(seconds_per_token, 1)
        await loop.step()
        return engine.gate.budget

    def stepped(seconds_per_token: float) -> int:
        return poor.loop.run(step(seconds_per_token)).result(10)

    stepped(0.01)
    with poor.holding(Rank.STANDARD, engine.gate.budget):
        assert stepped(0.01) == 4
        assert (stepped(1.0), loop.reason) == (3, "slow")
        for _ in range(20):
            stepped(1.0)
    assert engine.gate.budget >= 2


def test_without_metrics_silence_is_no_sign_that_it_hangs(short_dir: Path) -> None:
    folder, deaths = short_dir / "silent", list[str]()
    launch = echo_launch(folder, "--lacks=metrics")

    async def hang() -> None:
        async with EngineClient(socket=launch.socket) as client:
            with pytest.raises(EngineTimeout):
                await client.ask(CHAT, json.dumps(chat("[[hang]]")).encode(), 1.6)

    with Supervisor(
        launch,
        runtime_dir=folder,
        log_path=folder / "log",
        stuck_seconds=0.4,
        on_death=lambda _, why: deaths.append(why),
    ) as supervisor:
        wait_ready(supervisor, 30)
        asyncio.run(hang())  # with metrics it is dead after a quarter of that: test_supervisor.py
        assert deaths == []
        assert supervisor.generation == 1


def test_a_line_that_is_cancelled_runs_on_in_its_slot_and_its_answer_is_dropped(deaf: Site) -> None:
    before = deaf.engine.client.abandoned.total
    feed, _ = fed(deaf.engine, "[[sleep 600]]")

    async def watch(caller: Caller) -> None:
        await soon(lambda: deaf.metric("vllm:num_requests_running") == 1)
        feed.cancel()
        await soon(lambda: deaf.engine.client.abandoned.running == 1)
        assert (deaf.gate.lines, deaf.metric("vllm:num_requests_running")) == (1, 1)
        _, page = await caller.get("/metrics")
        assert f"penstock_engine_abandoned_total {before + 1}.0" in page
        assert "penstock_engine_abandoned_now 1.0" in page
        await soon(lambda: deaf.gate.lines == 0)
        assert deaf.metric("vllm:num_requests_running") == 0, "the slot is free once the engine is done"

    calling(deaf.ingress.url, watch)
    assert feed.collect() == []
    assert [said(record)["status_code"] for record in answers(deaf.engine, "next")] == [200]


def test_so_do_calls_that_leave_before_their_answers_and_in_the_middle_of_a_stream(deaf: Site) -> None:
    before = deaf.engine.client.abandoned.total

    async def leave(caller: Caller) -> None:
        calling = asyncio.create_task(caller.refusal(chat("bye [[sleep 300]]")))
        await soon(lambda: deaf.gate.calls == 1)
        calling.cancel()
        await soon(lambda: deaf.gate.in_flight == 0)
        async with caller.call(chat("bye [[tokens 30]]", stream=True)) as stream:
            assert await stream.content.readany()
        await soon(lambda: deaf.engine.client.abandoned.running == 1)
        assert deaf.gate.calls == 1, "its events come, and nobody reads them"
        await soon(lambda: deaf.gate.in_flight == 0)

    calling(deaf.ingress.url, leave)
    assert deaf.engine.client.abandoned.total == before + 2


def test_a_line_whose_time_is_over_keeps_its_slot_until_the_engine_is_done(deaf: Site) -> None:
    done = asyncio.Event()

    async def ask() -> None:
        with pytest.raises(EngineTimeout):
            await deaf.engine.client.ask(CHAT, json.dumps(chat("[[sleep 500]]")).encode(), 0.3, done.set)
        assert not done.is_set()
        await done.wait()

    deaf.loop.run(ask()).result(10)
