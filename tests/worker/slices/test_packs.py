"""Lines of embeddings and scores go to the engine in packs, and each ends as if it had been asked alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from worker.engines import wait_ready
from worker.slices.test_line_feed import claim, collected

from penstock.domain.work.lane import Lane
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.echo.answers import counted, tokens_of
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine.token_counter import TokenCounter
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip, now
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.reuse import each, grouped

EMBEDDINGS = "/v1/embeddings"
SLOTS = 128


@pytest.fixture
def counting(supervisor: Supervisor) -> Iterator[None]:
    """Whatever a test made of the engine's counter, the next one has a new one."""
    own = supervisor.launch
    fresh = TokenCounter(lambda: counted)
    supervisor.launch = dataclasses.replace(own, token_counter=fresh)
    yield
    supervisor.launch = own


def lines(texts: Sequence[str], **more: Any) -> list[Line]:
    bodies = (json.dumps({"model": "echo", "input": text, **more}).encode() for text in texts)
    return [Line(number, f"c{number}", EMBEDDINGS, body) for number, body in enumerate(bodies, 1)]


def fed(
    supervisor: Supervisor, asked: list[Line], socket: Path | None = None, *, slots: int = SLOTS, **settings: Any
) -> tuple[LineFeed, list[Record]]:
    """What was recorded of these lines, in the order of their numbers."""
    grip = Grip(1, now() + 60)
    client = EngineClient(socket=socket or supervisor.launch.socket, generation=lambda: supervisor.generation)
    with LoopThread() as loop, loop.living(client):
        engine = EngineContext(client, Gate(slots), supervisor, loop, Settings(**settings))
        feed = LineFeed(engine, claim(Lane.STANDARD, "a"), grouped(asked, dedup=True), grip)
        records = collected(feed, grip)
        assert engine.gate.in_flight == 0
    return feed, sorted(records, key=lambda record: record.number)


def responses(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [json.loads(record.line)["response"] for record in records]


def requests(records: Sequence[Record]) -> set[str]:
    """The engine's requests that answers came with: a pack's lines have its id and their place."""
    return {response["request_id"].partition("-")[0] for response in responses(records)}


def alone(body: dict[str, Any]) -> dict[str, Any]:
    """Without what no two answers of an engine share."""
    return {name: value for name, value in body.items() if name not in ("id", "created")}


def test_ten_poisoned_inputs_among_hundreds_are_told_so_and_all_others_get_their_own_answers(
    supervisor: Supervisor, counting: None, journal: Path
) -> None:
    texts = [f"text {n} " + "word " * (n % 40) + "[[status 400]]" * (n % 30 == 7) for n in range(300)]
    _, records = fed(supervisor, lines(texts))
    assert [record.number for record in records] == list(range(1, 301))
    poisoned = [n for n, record in enumerate(records) if record.failed]
    assert poisoned == [n for n in range(300) if n % 30 == 7]
    assert {response["status_code"] for response in responses([records[n] for n in poisoned])} == {400}
    answered = [record for record in records if not record.failed]
    healthy = [text for n, text in enumerate(texts) if n not in poisoned]
    _, one_by_one = fed(supervisor, lines(healthy), pack_lines=1)
    told = zip(responses(answered), responses(one_by_one), strict=True)
    assert all(alone(packed["body"]) == alone(single["body"]) for packed, single in told)
    assert [record.usage.input_tokens for record in answered] == [tokens_of(text) for text in healthy]
    assert len({response["body"]["id"] for response in responses(answered)}) == len(answered)
    assert (len(requests(one_by_one)), len(requests(answered)) < 100) == (290, True)


def test_scores_of_pairs_are_packed_and_a_poisoned_pair_is_told_so_alone(
    supervisor: Supervisor, counting: None
) -> None:
    seconds = [f"the mill {n} of a river" + " [[status 400]]" * (n == 17) for n in range(60)]
    bodies = [{"model": "echo", "text_1": f"which river {n}", "text_2": second} for n, second in enumerate(seconds)]
    asked = [Line(n, f"c{n}", "/v1/score", json.dumps(body).encode()) for n, body in enumerate(bodies)]
    _, records = fed(supervisor, asked)
    assert [n for n, record in enumerate(records) if record.failed] == [17]
    _, one_by_one = fed(supervisor, asked, pack_lines=1)
    told = zip(responses(records), responses(one_by_one), strict=True)
    assert all(
        alone(packed["body"]) == alone(single["body"]) for packed, single in told if packed["status_code"] == 200
    )
    assert [record.usage.input_tokens for record in records] == [record.usage.input_tokens for record in one_by_one]
    assert (len(requests(one_by_one)), len(requests(records)) < 20) == (60, True)


def test_a_pair_whose_tokens_are_not_told_by_a_packs_sum_is_asked_alone(supervisor: Supervisor, counting: None) -> None:
    # 2, 2 and 4 tokens; joined, which has the same sum, 3, 1 and 4.
    texts = [("a" * 7, "b" * 7), ("a", "b"), ("c" * 8, "d" * 8)]
    bodies = [{"model": "echo", "text_1": one, "text_2": other} for one, other in texts]
    asked = [Line(n, f"c{n}", "/v1/score", json.dumps(body).encode()) for n, body in enumerate(bodies)]
    _, records = fed(supervisor, asked)
    assert [record.usage.input_tokens for record in records] == [2, 2, 4]
    assert [response["request_id"].endswith("-2") for response in responses(records)] == [False, False, True]
    assert len(requests(records)) == 3


def test_a_pack_has_at_most_a_quarter_of_the_lines_that_may_be_in_flight(
    supervisor: Supervisor, counting: None
) -> None:
    texts = [f"a line {n}" for n in range(64)]
    sizes = {slots: len(requests(fed(supervisor, lines(texts), slots=slots)[1])) for slots in (3, 32, SLOTS)}
    assert sizes == {3: 64, 32: 8, SLOTS: 2}


def test_lines_that_ask_otherwise_are_in_packs_of_their_own(supervisor: Supervisor, counting: None) -> None:
    texts = [f"one {n}" for n in range(10)]
    asked = [*lines(texts), *lines(texts, encoding_format="base64"), *lines(texts, truncate_prompt_tokens=9)]
    asked = [dataclasses.replace(line, number=number) for number, line in enumerate(asked, 1)]
    _, records = fed(supervisor, asked)
    of_each = [requests(records[start : start + 10]) for start in (0, 10, 20)]
    assert [len(one) for one in of_each] == [1, 1, 10]
    vectors = [response["body"]["data"][0]["embedding"] for response in responses(records)]
    assert vectors[0] == vectors[20] != vectors[10]
    assert isinstance(vectors[10], str)


def test_equal_lines_are_one_input_and_end_with_it(supervisor: Supervisor, counting: None, journal: Path) -> None:
    _, records = fed(supervisor, lines(["twin", "other", "twin", "bad [[status 400]]", "bad [[status 400]]"]))
    noted = [entry.split("\t")[2] for entry in journal.read_text().splitlines()]
    assert noted.count("other") <= 3  # in the pack, in its half, and alone
    assert [bool(record.reused) for record in records] == [False, False, True, False, True]
    assert [record.failed for record in records] == [False, False, False, True, True]
    assert records[2].usage.cached_tokens == records[0].usage.input_tokens


def test_all_lines_of_a_pack_are_suspect_if_the_engine_dies_with_it(supervisor: Supervisor, counting: None) -> None:
    feed, records = fed(supervisor, lines(["a", "b", "please [[die]]", "c"]))
    assert (records, feed.engine_gone, sorted(feed.in_flight)) == ([], True, [1, 2, 3, 4])
    wait_ready(supervisor, 30, generation=supervisor.generation + 1)


def test_suspects_are_asked_by_themselves(supervisor: Supervisor, counting: None) -> None:
    grip = Grip(1, now() + 60)
    client = EngineClient(socket=supervisor.launch.socket, generation=lambda: supervisor.generation)
    with LoopThread() as loop, loop.living(client):
        engine = EngineContext(client, Gate(SLOTS), supervisor, loop, Settings())
        feed = LineFeed(engine, claim(Lane.STANDARD, "a"), each(lines(["a", "b", "c"])), grip, Gate(8))
        assert len(requests(collected(feed, grip))) == 3


def test_after_a_time_out_each_line_has_the_rest_of_its_time_alone(supervisor: Supervisor, counting: None) -> None:
    _, records = fed(supervisor, lines(["a", "never [[hang]]", "b"]), line_timeout_seconds=1.0)
    assert [record.failed for record in records] == [False, True, False]
    assert json.loads(records[1].line)["error"]["code"] == "request_timeout"


@asynccontextmanager
async def odd(socket: Path, seen: list[Any]) -> AsyncIterator[None]:
    """An engine that counts each text as nine tokens."""

    async def answer(request: web.Request) -> web.Response:
        inputs = (await request.json())["input"]
        seen.append(inputs)
        texts = inputs if isinstance(inputs, list) else [inputs]
        data = [{"index": place, "embedding": [0.5]} for place in range(len(texts))]
        usage = {"prompt_tokens": 9 * len(texts), "total_tokens": 9 * len(texts)}
        return web.json_response({"id": "e", "data": data, "usage": usage})

    app = web.Application()
    app.router.add_post(EMBEDDINGS, answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    yield
    await runner.cleanup()


def test_an_engine_that_counts_otherwise_is_asked_line_by_line_from_then_on(
    supervisor: Supervisor, counting: None, short_dir: Path
) -> None:
    seen: list[Any] = []
    with LoopThread() as loop, loop.living(odd(short_dir / "odd.sock", seen)):
        for _ in range(2):
            _, records = fed(supervisor, lines([f"text {n}" for n in range(6)]), short_dir / "odd.sock")
            assert [record.usage.input_tokens for record in records] == [9] * 6
    assert [len(inputs) for inputs in seen if isinstance(inputs, list)] == [6]
    assert len(seen) == 1 + 2 * 6
