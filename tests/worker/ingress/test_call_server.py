"""The ingress passes an engine's answers on byte by byte as they come, and refuses in a router's words."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from worker.engines import engine_pid, wait_ready
from worker.ingresses import CHAT, Caller, Site, caller, calling, chat, site, soon

from penstock.domain.work.rank import Rank
from penstock_worker.engine.client import EngineClient

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "a b"}]},
    "/v1/completions": {"prompt": "a b"},
    "/v1/embeddings": {"input": ["a b", "c"]},
    "/v1/responses": {"input": "a b"},
    "/v1/score": {"text_1": "a b", "text_2": ["a b", "c"]},
    "/v1/rerank": {"query": "a b", "documents": ["c", "a b"]},
    "/tokenize": {"prompt": "a b"},
}


@pytest.fixture(scope="module")
def shared(short_dir: Path) -> Iterator[Site]:
    """An ingress whose engine nobody kills."""
    with site(short_dir, "--max-num-seqs=8", "--itl-ms=5", max_json_bytes=1_000, call_wait_seconds=0.3) as one:
        yield one


async def own_answer(site: Site, endpoint: str, body: dict[str, Any], id: str) -> tuple[int, str, bytes]:
    """What the engine itself answers."""
    async with (
        EngineClient(socket=site.supervisor.launch.socket) as client,
        client.open(endpoint, json.dumps(body).encode(), 20, id) as answer,
    ):
        return answer.status, answer.headers["content-type"], b"".join([chunk async for chunk in answer.chunks])


@pytest.mark.parametrize("endpoint", BODIES)
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"model": "unknown"}])
def test_an_answer_is_the_engines_own_byte_by_byte(shared: Site, endpoint: str, more: dict[str, Any]) -> None:
    body = BODIES[endpoint] | more

    async def both(caller: Caller) -> None:
        async with caller.call(body, endpoint, id="same") as response:
            through = response.status, response.headers["content-type"], await response.read()
            assert response.headers["x-penstock-worker"] == str(shared.worker)
            assert int(response.headers["x-penstock-queue-ms"]) < 1_000
        assert through == await own_answer(shared, endpoint, body, "same")

    calling(shared.ingress.url, both)


def test_a_stream_comes_chunk_by_chunk_and_is_measured(shared: Site) -> None:
    async def listen(caller: Caller) -> None:
        async with caller.call(chat("hi [[tokens 2000]] [[stall-after 1000]]", stream=True)) as response:
            for _ in range(10):  # they come although the last is never made
                assert await response.content.readuntil(b"\n\n")
            assert shared.ingress.calls == 1
            await soon(lambda: len(shared.heard.gaps) >= 5)  # on a busy machine many events come as one chunk

    shared.heard.ttfts.clear()
    shared.heard.gaps.clear()
    calling(shared.ingress.url, listen)
    assert len(shared.heard.ttfts) == 1


def test_whole_answers_and_flex_calls_teach_the_controller_nothing(shared: Site) -> None:
    async def ask(caller: Caller) -> None:
        assert await caller.refusal(chat("hi")) == (200, None)
        assert await caller.refusal(chat("hi", stream=True), tier="flex") == (200, None)

    shared.heard.ttfts.clear()
    calling(shared.ingress.url, ask)
    assert not shared.heard.ttfts


def test_a_caller_that_leaves_aborts_its_request_in_the_engine(shared: Site) -> None:
    async def leave(caller: Caller) -> None:
        await soon(lambda: shared.metric("vllm:num_requests_running") == 0)
        aborted = shared.metric("echo:requests_aborted")
        async with caller.call(chat("hi [[tokens 100]] [[stall-after 3]]", stream=True), id="late") as response:
            await response.content.readuntil(b"\n\n")
            response.close()
        await soon(lambda: shared.metric("echo:requests_aborted") == aborted + 1)  # else it is taken for the next one
        await soon(lambda: not shared.gate.calls)
        silent = asyncio.create_task(caller.refusal(chat("[[hang]]"), id="early"))
        await soon(lambda: shared.metric("vllm:num_requests_running") == 1 and shared.gate.calls == 1)
        silent.cancel()
        await soon(lambda: shared.metric("echo:requests_aborted") == aborted + 2)
        await soon(lambda: not shared.ingress.holds and not shared.gate.in_flight)
        for id in ("early", "late"):
            assert await caller.get(f"/calls/{id}") == (200, {"outcome": "left", "suspects": False})

    calling(shared.ingress.url, leave)


def test_only_who_knows_the_token_is_heard(shared: Site) -> None:
    async def knock(caller: Caller) -> None:
        for token in ("", "wrong", "the-ingress's-token-and-more", "é"):
            assert await caller.refusal(chat("hi"), token=token) == (401, None)
            for path in ("/health", "/metrics", "/calls/one"):
                assert (await caller.get(path, token=token))[0] == 401
        assert await caller.get("/health") == (200, {"open": True})
        assert await caller.get("/calls/nobody") == (404, "")
        page = (await caller.get("/metrics"))[1]
        assert "penstock_gate_budget 8.0" in page
        assert "penstock_batch_budget_reason" in page

    calling(shared.ingress.url, knock)


def test_who_scrapes_sees_the_engines_own_metrics_beside_the_workers_and_may_ask_nothing_else(short_dir: Path) -> None:
    async def scrape(caller: Caller) -> None:
        status, page = await caller.get("/metrics", token="of-prometheus")
        assert status == 200
        assert "penstock_engine_metrics_up 1.0" in page
        assert f'vllm:num_requests_running{{worker="{name}"' in page
        assert page.count("# TYPE vllm:num_requests_running gauge") == 1
        for path in ("/health", "/calls/one"):
            assert (await caller.get(path, token="of-prometheus"))[0] == 401
        assert await caller.refusal(chat("hi"), token="of-prometheus") == (401, None)

    with site(short_dir, metrics_token="of-prometheus") as its:
        name = str(its.worker)[:8]
        calling(its.ingress.url, scrape)


def test_a_door_with_a_certificate_speaks_tls(short_dir: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "ingress.pem", tmp_path / "ingress.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=ingress", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)

    async def ask() -> None:
        async with caller(one.ingress.url, ssl=trusting) as trusted, caller(one.ingress.url) as other:
            assert await trusted.refusal(chat("hi")) == (200, None)
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await other.refusal(chat("hi"))
            async with trusted.call(chat("hi [[tokens 40]] [[break-after 5]]", stream=True)) as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()

    with site(short_dir, ingress_cert=certificate, ingress_key=key) as one:
        assert one.ingress.url.startswith("https://127.0.0.1:")
        asyncio.run(asyncio.wait_for(ask(), 60))


def test_what_is_no_call_is_refused(shared: Site) -> None:
    async def ask(caller: Caller) -> None:
        assert await caller.refusal(chat("hi"), endpoint="/v1/nothing") == (404, None)
        assert await caller.refusal(chat("hi"), tier="fast") == (400, None)
        assert await caller.refusal(chat("hi"), tenant="") == (400, None)
        assert await caller.refusal(b"[]") == (400, None)
        assert await caller.refusal(chat("x" * 2_000)) == (413, None)
        assert await caller.refusal(chat("hi"), id="x" * 201) == (400, None)

    calling(shared.ingress.url, ask)
    assert not shared.ingress.holds


def test_a_call_waits_for_a_slot_and_no_longer_than_it_may(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = shared.ingress._settings.model_copy(update={"call_wait_seconds": 30.0})

    async def wait(caller: Caller) -> None:
        with shared.holding(Rank.REALTIME, shared.gate.slots):
            assert await caller.refusal(chat("hi")) == (503, "waited")
            monkeypatch.setattr(shared.ingress, "_settings", patient)
            waiting = asyncio.create_task(caller.refusal(chat("hi")))
            await soon(lambda: shared.gate.waiting(Rank.REALTIME) == 1)
        assert await waiting == (200, None)

    calling(shared.ingress.url, wait)


def test_calls_enter_slots_that_batch_lines_do_not(shared: Site) -> None:
    async def ask(caller: Caller) -> None:
        with shared.holding(Rank.STANDARD, 8):
            assert await caller.refusal(chat("hi")) == (200, None)
            assert await caller.refusal(chat("hi"), tier="priority") == (200, None)
            assert await caller.refusal(chat("hi"), tier="flex") == (503, "waited")

    calling(shared.ingress.url, ask)


def test_while_suspects_are_tried_calls_go_elsewhere_unless_there_is_no_elsewhere(short_dir: Path) -> None:
    async def ask(caller: Caller) -> None:
        await soon(lambda: one.changes == [False, True])
        with ExitStack() as trial:
            with one.holding(Rank.REALTIME, one.gate.slots):
                waiting = asyncio.create_task(caller.refusal(chat("hi")))
                staying = asyncio.create_task(caller.refusal(chat("hi"), last_resort="1"))
                await soon(lambda: one.gate.waiting(Rank.REALTIME) == 2)
                trial.enter_context(one.trying())
                assert await waiting == (503, "closed"), "those in line are not kept either"
                assert await caller.refusal(chat("hi")) == (503, "closed")
                assert await caller.get("/health") == (200, {"open": False})
            await soon(lambda: not one.gate.in_flight)
            assert not staying.done()
        assert await staying == (200, None)
        await soon(lambda: one.changes == [False, True, False, True])

    with site(short_dir) as one:
        calling(one.ingress.url, ask)


def test_a_full_door_says_so(short_dir: Path) -> None:
    async def fill(caller: Caller) -> None:
        inside = [asyncio.create_task(caller.refusal(chat("[[hang]]"))) for _ in range(3)]
        await soon(lambda: one.ingress.calls == 3)
        assert await caller.refusal(chat("hi")) == (503, "full")
        inside[0].cancel()
        await soon(lambda: one.ingress.calls == 2)
        assert await caller.refusal(chat("hi")) == (200, None)
        for task in inside:
            task.cancel()

    with site(short_dir, ingress_calls=3) as one:
        calling(one.ingress.url, fill)


@pytest.mark.parametrize("fault", ["die", "core-dies"])
def test_an_engine_that_dies_before_the_first_byte_is_a_refusal_that_says_so(short_dir: Path, fault: str) -> None:
    async def ask(caller: Caller) -> None:
        bystander = asyncio.create_task(caller.refusal(chat("[[hang]]"), id="bystander"))
        await soon(lambda: one.gate.calls == 1)
        assert await caller.refusal(chat(f"[[{fault}]]"), id="poison") == (503, "engine-died")
        assert await bystander == (503, "engine-died")
        for id in ("poison", "bystander"):
            assert await caller.get(f"/calls/{id}") == (200, {"outcome": "engine-died", "suspects": False})
        assert await caller.refusal(chat("hi")) == (503, "not-ready")
        wait_ready(one.supervisor, 60, generation=2)
        assert await caller.refusal(chat("hi")) == (200, None)

    with site(short_dir) as one:
        calling(one.ingress.url, ask)
        assert not one.gate.in_flight


def test_an_engine_that_dies_in_mid_stream_breaks_the_connection_and_its_fate_is_known(short_dir: Path) -> None:
    async def ask(caller: Caller) -> None:
        async with caller.call(chat("hi [[tokens 40]] [[die-after 5]]", stream=True), id="one") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert await caller.get("/calls/one") == (200, {"outcome": "engine-died", "suspects": False})

    with site(short_dir) as one:
        calling(one.ingress.url, ask)


def test_a_stream_that_the_engine_itself_ends_with_an_error_event_is_passed_on_and_its_fate_noted(
    short_dir: Path,
) -> None:
    async def ask(caller: Caller) -> None:
        async with caller.call(chat("hi [[tokens 40]] [[core-dies-after 5]]", stream=True), id="one") as response:
            *_, error, done, _ = (await response.read()).split(b"\n\n")
            assert error.startswith(b'data: {"error":')
            assert done == b"data: [DONE]"
        assert await caller.get("/calls/one") == (200, {"outcome": "engine-died", "suspects": False})

    with site(short_dir) as one:
        calling(one.ingress.url, ask)


def test_an_error_event_of_a_dying_engine_before_anything_else_is_a_refusal(short_dir: Path) -> None:
    async def ask(caller: Caller) -> None:
        asked = chat("hi [[tokens 40]] [[core-dies-after 0]]", stream=True)
        assert await caller.refusal(asked, id="one") == (503, "engine-died")
        assert await caller.get("/calls/one") == (200, {"outcome": "engine-died", "suspects": False})

    with site(short_dir) as one:
        calling(one.ingress.url, ask)


def test_a_connection_that_breaks_while_the_engine_lives_is_unanswered(shared: Site) -> None:
    async def ask(caller: Caller) -> None:
        assert await caller.refusal(chat("[[break]]"), id="early") == (503, "unanswered")
        async with caller.call(chat("hi [[tokens 40]] [[break-after 5]]", stream=True), id="late") as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        for id in ("early", "late"):
            assert await caller.get(f"/calls/{id}") == (200, {"outcome": "unanswered", "suspects": False})
        assert await caller.refusal(chat("[[status 500]]"), id="fine") == (500, None)
        assert await caller.get("/calls/fine") == (200, {"outcome": "answered", "suspects": False})

    calling(shared.ingress.url, ask)


def test_a_door_of_a_worker_that_ends_lets_calls_inside_finish_and_cuts_those_that_take_too_long(
    short_dir: Path,
) -> None:
    async def ask(caller: Caller) -> None:
        async with (
            caller.call(chat("hi [[tokens 40]] [[stall-after 3]]", stream=True), id="long") as long,
            caller.call(chat("hi [[tokens 200]]", stream=True), id="short") as short,
        ):
            silent = asyncio.create_task(caller.refusal(chat("[[hang]]"), id="silent"))
            await soon(lambda: one.gate.in_flight == 3)
            with one.holding(Rank.REALTIME, one.gate.slots - 3):
                waiting = asyncio.create_task(caller.refusal(chat("hi"), id="waiting"))
                await soon(lambda: one.gate.waiting(Rank.REALTIME) == 1)
                one.ingress.drain()
                assert await waiting == (503, "draining")
            assert await caller.refusal(chat("hi")) == (503, "draining")
            assert (await short.read()).endswith(b"data: [DONE]\n\n")
            assert one.ingress.holds
            with pytest.raises(aiohttp.ClientPayloadError):
                await long.read()
        assert await silent == (503, "unanswered")
        await soon(lambda: not one.ingress.holds)
        for id, outcome in (("short", "answered"), ("long", "unanswered"), ("silent", "unanswered")):
            assert await caller.get(f"/calls/{id}") == (200, {"outcome": outcome, "suspects": False})

    with site(short_dir, "--itl-ms=20", "--max-num-seqs=8", ingress_grace_seconds=8.0) as one:
        calling(one.ingress.url, ask)
        assert not one.gate.in_flight


def test_a_door_of_a_drained_worker_lets_all_inside_finish_and_nobody_in_until_it_is_undrained(shared: Site) -> None:
    async def ask(caller: Caller) -> None:
        async with caller.call(chat("hi [[tokens 40]]", stream=True)) as inside:
            with shared.holding(Rank.REALTIME, shared.gate.slots - 1):
                waiting = asyncio.create_task(caller.refusal(chat("hi")))
                await soon(lambda: shared.gate.waiting(Rank.REALTIME) == 1)
                shared.ingress.rest(True)
                assert await caller.refusal(chat("hi")) == (503, "draining")
                await soon(lambda: not shared.changes[-1])
            assert await waiting == (200, None)
            assert (await inside.read()).endswith(b"data: [DONE]\n\n")
        assert not shared.ingress.holds
        shared.ingress.rest(False)
        assert await caller.refusal(chat("hi")) == (200, None)

    calling(shared.ingress.url, ask)


def test_a_restart_turns_calls_out_as_the_end_does_and_spares_those_that_come_after_it(short_dir: Path) -> None:
    async def ask(caller: Caller) -> None:
        silent = asyncio.create_task(caller.refusal(chat("[[hang]]")))
        await soon(lambda: one.gate.in_flight == 1)
        one.ingress.restart(True)
        assert await caller.refusal(chat("hi")) == (503, "draining")
        assert await silent == (503, "unanswered")
        await soon(lambda: not one.ingress.holds)
        for begins in (False, True, False):
            one.ingress.restart(begins)
        async with caller.call(chat("hi [[tokens 80]]", stream=True)) as after:  # twice as long as the grace
            assert (await after.read()).endswith(b"data: [DONE]\n\n")

    with site(short_dir, "--itl-ms=20", ingress_grace_seconds=0.8) as one:
        calling(one.ingress.url, ask)


def test_no_slot_is_lost_by_five_hundred_calls_that_leave_whenever_they_like(shared: Site) -> None:
    chance = random.Random(4)

    async def one_call(caller: Caller) -> None:
        text = chance.choice(
            ["hi", "[[sleep 20]]", "hi [[tokens 20]]", "[[break]]", "hi [[tokens 9]] [[break-after 2]]"]
        )
        asked = chat(f"{chance.random()} {text}", stream=chance.random() < 0.5)
        try:
            async with asyncio.timeout(chance.random() * 0.1):
                await caller.refusal(asked, tier=chance.choice(["priority", "default", "flex"]))
        except (TimeoutError, aiohttp.ClientError):
            pass

    async def crowd(caller: Caller) -> None:
        waves = [one_call(caller) for _ in range(500)]
        for start in range(0, 500, 50):
            await asyncio.gather(*waves[start : start + 50])
        # Those that left last may come in only now: a look that sees nobody may be too early.
        await soon(lambda: not shared.ingress.holds and not shared.gate.in_flight)
        assert all(shared.gate.waiting(rank) == 0 for rank in Rank)
        await soon(lambda: shared.metric("vllm:num_requests_running") == 0)
        assert await caller.refusal(chat("hi")) == (200, None)

    calling(shared.ingress.url, crowd)


def test_a_reader_who_takes_nothing_holds_no_memory_and_is_given_up(short_dir: Path) -> None:
    async def dawdle(caller: Caller) -> None:
        # A stream of some 80 MB.
        async with caller.call(chat("hi [[tokens 400000]]", stream=True), id="slow") as response:
            await response.content.readuntil(b"\n\n")
            before = psutil.Process().memory_info().rss
            await soon(lambda: not one.ingress.holds)
            assert psutil.Process().memory_info().rss - before < 16 * 1024 * 1024
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert await caller.get("/calls/slow") == (200, {"outcome": "left", "suspects": False})
        await soon(lambda: one.metric("echo:requests_aborted") == 1)

    with site(short_dir, slow_body_seconds=1.0) as one:
        calling(one.ingress.url, dawdle)
        assert not one.gate.in_flight


def test_an_engine_that_was_killed_outright_loses_nobody_silently(short_dir: Path) -> None:
    async def ask(caller: Caller) -> None:
        async def listen(number: int) -> str:
            async with caller.call(chat("hi [[tokens 10000]]", stream=True), id=f"call-{number}") as response:
                began.append(number)
                try:
                    await response.read()
                except aiohttp.ClientPayloadError:
                    return "broken"
                return response.headers.get("x-penstock-refusal", "whole")

        began: list[int] = []
        tasks = [asyncio.create_task(listen(number)) for number in range(20)]
        await soon(lambda: len(began) == 20)
        os.kill(engine_pid(one.supervisor), signal.SIGKILL)
        assert await asyncio.gather(*tasks) == ["broken"] * 20
        for number in range(20):
            assert (await caller.get(f"/calls/call-{number}"))[1]["outcome"] == "engine-died"

    with site(short_dir, "--itl-ms=10") as one:
        calling(one.ingress.url, ask)
