"""An ensemble of two models through a whole platform on the simulated engine: a batch, a job, calls; with its trace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from e2e.ensembles import add, penstock, worker
from e2e.live import Platform, chat, said, until

pytestmark = pytest.mark.timeout(300)

YAML = """
name: support
kind: route
members:
  - model: tiny
  - {model: two, params: {temperature: 0}}
rules:
  - {when: {regex: two}, use: two}
default: tiny
"""


@pytest.fixture(scope="module", autouse=True)
def ensemble(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A second worker beside the platform's own, and an ensemble of their two models."""
    folder = tmp_path_factory.mktemp("two")
    with worker(platform, "two=x", folder / "worker.log", "--engine", "echo"):
        (folder / "support.yaml").write_text(YAML)
        assert penstock(platform, "add", str(folder / "support.yaml")) == "support is v1, of tiny, two\n"
        yield


def member_of(n: int) -> str:
    return "two" if n % 3 == 0 else "tiny"


def line(n: int, text: str = "", **more: Any) -> dict[str, Any]:
    return chat(f"{n}", f"line {n} for {member_of(n)}{text}", model="support", **more)


def trace(winner: str, outcome: str, tokens: int, ms: int) -> dict[str, Any]:
    member = {"model": winner, "outcome": outcome, "tokens": tokens, "ms": ms}
    return {"ensemble": "support", "version": "v1", "kind": "route", "winner": winner, "members": [member]}


def test_each_line_of_a_batch_is_answered_by_its_member_and_says_so(platform: Platform) -> None:
    lines = [line(n, " [[status 422]]" * (n == 7)) for n in range(300)]
    lines.append(line(300) | {"custom_id": "again"})
    batch = platform.ended(platform.submit([*lines, line(300)]).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 301, 1)
    answers = platform.file(batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == [*(f"{n}" for n in range(300) if n != 7), "again", "300"]
    for answer in answers[:-1]:
        n = 300 if answer["custom_id"] == "again" else int(answer["custom_id"])
        body = answer["response"]["body"]
        assert (said(answer), body["model"]) == (f"line {n} for {member_of(n)}", "support")
        ms = body["penstock"]["members"][0]["ms"]
        assert body["penstock"] == trace(member_of(n), "answered", body["usage"]["total_tokens"], ms)
        assert 0 <= ms < 60_000
    same = answers[-1]["response"]
    assert same["cached"], "with the member's temperature equal lines have one answer"
    assert same["body"]["penstock"] == trace("two", "reused", same["body"]["usage"]["total_tokens"], 0)
    [failed] = platform.file(batch.error_file_id)
    assert failed["response"]["body"]["penstock"]["members"][0]["outcome"] == "refused"
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["versions"] == {"support": ["v1"], "tiny": ["v1"], "two": ["v1"]}
    of_members = {answer["response"]["body"]["penstock"]["winner"] for answer in answers}
    assert of_members == {"tiny", "two"}
    used = platform.http.get("/usage", params={"group_by": "model", "start_time": batch.created_at}).json()
    of = {one["model"] for bucket in used["data"] for one in bucket["results"]}
    assert (of >= {"tiny", "two"}, "support" in of) == (True, False), "what it cost is its members'"


def test_failed_lines_are_asked_again_of_the_member_that_they_go_to_then(platform: Platform) -> None:
    lines = [line(n, f" [[status 503 times {3 * (n % 2)}]]") for n in range(1, 5)]
    batch = platform.ended(platform.submit(lines).id)
    assert batch.request_counts
    assert batch.request_counts.failed == 2
    again = platform.ended(platform.http.post(f"/batches/{batch.id}/retry", json={}).json()["id"])
    won = {a["custom_id"]: a["response"]["body"]["penstock"]["winner"] for a in platform.file(again.output_file_id)}
    assert won == {"1": "tiny", "3": "two"}


def test_jobs_and_calls_go_by_the_same_rules_and_lines_are_counted(platform: Platform) -> None:
    requests = [{"custom_id": f"{n}", "body": line(n)["body"]} for n in (1, 3)]
    for sent in (requests, requests[:1]):  # two members: planned as a file; one: at once
        job = platform.http.post("/jobs", json={"requests": sent}).json()
        assert platform.http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()["status"] == "completed"
        ended = platform.http.get(f"/jobs/{job['id']}").json()
        rows = ended["results"] if ended["results"] is not None else platform.file(ended["output_file_id"])
        assert [row["response"]["body"]["penstock"]["winner"] for row in rows] == ["tiny", "two"][: len(sent)]
    for n in (1, 3):
        asked = line(n)["body"]
        answer = platform.http.post("/chat/completions", json=asked)
        body = answer.json()
        assert (body["model"], answer.headers["x-penstock-version"]) == ("support", "v1")
        assert body["choices"][0]["message"]["content"] == f"line {n} for {member_of(n)}"
        ms = body["penstock"]["members"][0]["ms"]
        assert body["penstock"] == trace(member_of(n), "answered", body["usage"]["total_tokens"], ms)
        streamed = platform.http.post("/chat/completions", json=asked | {"stream": True})
        assert json.loads(streamed.headers["x-penstock-ensemble"])["winner"] == member_of(n)
        chunks = [json.loads(part[6:]) for part in streamed.text.splitlines() if part.startswith("data: {")]
        assert {chunk["model"] for chunk in chunks} == {"support"}
    shown = json.loads(penstock(platform, "show", "support", "--json"))["members"]
    assert [member["model"] for member in shown] == ["tiny", "two"]
    own = "select sum(lines)::int from slices where ensemble in (select id from ensembles where name = 'support')"
    lines = platform.ask(own)
    assert sum(member["lines"] for member in shown) == lines


def made(platform: Platform, name: str, kind: str, *members: dict[str, Any], **more: Any) -> None:
    add(platform, {"name": name, "kind": kind, "members": list(members), **more})


def aborted(platform: Platform) -> float:
    """How many requests the engine of `tiny` dropped because nobody listened any more."""
    transport = httpx.HTTPTransport(uds=f"{platform.engine_socket()}")
    with httpx.Client(transport=transport, base_url="http://engine") as engine:
        rows = engine.get("/metrics").text.splitlines()
    return float(next(row.split()[-1] for row in rows if row.startswith("echo:requests_aborted")))


def test_a_members_work_that_can_not_change_a_vote_any_more_is_aborted_in_its_engine(platform: Platform) -> None:
    hangs = {"model": "tiny", "params": {"played": "[[hang]]"}}
    made(platform, "panel", "vote", hangs, {"model": "two"}, {"model": "tiny"})
    before = aborted(platform)
    asked = chat("", "which one?", model="panel")["body"]
    body = until(lambda: _answered(platform, asked), "the ensemble is known")
    assert body["choices"][0]["message"]["content"] == "which one?"
    outcomes = [(member["model"], member["outcome"]) for member in body["penstock"]["members"]]
    assert outcomes == [("tiny", "cancelled"), ("two", "answered"), ("tiny#2", "answered")]
    until(lambda: aborted(platform) == before + 1, "the engine hears of it")


def test_every_endpoint_falls_back_streamed_or_not_and_texts_are_voted_on(platform: Platform) -> None:
    odd, broken = ({"model": "two", "params": {"played": how}} for how in ("[[nul]]", "[[status 500]]"))
    made(platform, "voters", "vote", odd, {"model": "tiny"}, {"model": "two"}, min_responses=3)
    made(platform, "spare", "fallback", broken, {"model": "tiny"})
    pair = {"text_1": "a", "text_2": ["b"], "query": "a", "documents": ["b"]}
    for path in ("completions", "responses", "embeddings", "score", "rerank"):
        asked = {"prompt": "a", "input": "a", "model": "spare"} | (pair if path in ("score", "rerank") else {})
        body = until(lambda path=path, asked=asked: _answered(platform, asked, path), "the ensemble is known")
        assert (body["model"], body["penstock"]["winner"]) == ("spare", "tiny")
    for path, text in (("completions", '"text":"a"'), ("responses", '"delta":"a"')):
        asked = {"prompt": "a", "input": "a", "model": "spare", "stream": True}
        streamed = platform.http.post(f"/{path}", json=asked)
        assert json.loads(streamed.headers["x-penstock-ensemble"])["winner"] == "tiny"
        assert text in streamed.text
        trace = platform.http.post(f"/{path}", json=asked | {"model": "voters", "stream": False}).json()["penstock"]
        assert (trace["winner"], [member["vote"] for member in trace["members"]]) == ("tiny", ["a\0", "a", "a"])


def test_openais_sdk_reads_the_streams_of_kinds_that_read_texts_and_a_judge_nobody_hears_is_aborted(
    platform: Platform,
) -> None:
    members = ({"model": "tiny"}, {"model": "two"})
    judge = {"model": "tiny", "prompt": "both {answers}"}
    made(platform, "mixed", "combine", *members, judge=judge)
    made(platform, "voted", "vote", *members)
    made(platform, "stuck", "combine", *members, judge=judge | {"params": {"played": "[[stall-after 6]]"}})
    both = "both Answer 1:\na word or two\n\nAnswer 2:\na word or two"
    client = platform.sdk.with_options(max_retries=0)
    for name, text in (("voted", "a word or two"), ("mixed", both)):
        asked: dict[str, Any] = {"model": name, "stream": True}
        whole = {"prompt": "a word or two", "model": name}
        until(lambda whole=whole: _answered(platform, whole, "completions"), "the ensemble is known")
        said = client.completions.create(**asked, prompt="a word or two", stream_options={"include_usage": True})
        *chunks, last = list(said)
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
        assert (last.choices, last.usage.total_tokens > 0, last.model) == ([], True, name)
        *_, end = events = list(client.responses.create(**asked, input="a word or two"))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert (end.type, end.response.output_text, "".join(deltas)) == ("response.completed", text, text)
        assert end.response.model == name
        unstreamed = client.responses.create(model=name, input="a word or two")
        assert end.response.usage == unstreamed.usage, "the sum, streamed or not"
    before = aborted(platform)
    with client.chat.completions.create(
        model="stuck", stream=True, messages=[{"role": "user", "content": "a word or two"}]
    ) as stream:
        assert next(chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content) == "both "
        assert aborted(platform) == before
    until(lambda: aborted(platform) == before + 1, "the engine hears of it")


def test_a_fallback_whose_first_engine_dies_in_the_midst_of_a_call_is_answered_by_the_next(platform: Platform) -> None:
    made(platform, "heir", "fallback", {"model": "two", "params": {"played": "[[die]]"}}, {"model": "tiny"})
    asked = chat("", "still there?", model="heir")["body"]
    body = until(lambda: _answered(platform, asked), "the ensemble is known")
    first, second = body["penstock"]["members"]
    assert (first["model"], first["outcome"], first["code"]) == ("two", "failed", "engine_crash")
    assert (second["outcome"], body["choices"][0]["message"]["content"]) == ("answered", "still there?")


def _answered(platform: Platform, asked: dict[str, Any], path: str = "chat/completions") -> dict[str, Any] | None:
    answer = platform.http.post(f"/{path}", json=asked)
    assert answer.status_code in (200, 404), answer.text
    found: dict[str, Any] = answer.json()
    return found if answer.status_code == 200 else None
