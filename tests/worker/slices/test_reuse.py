"""Equal lines of a slice that have one answer are asked once, and end as the one that was asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from worker.slices.test_line_feed import claim, collected

from penstock.domain.reuse import CacheMode, Reuse, ReuseSource
from penstock.domain.work.lane import Lane
from penstock.domain.work.slice import Claim
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock.service.calls.reuse import bounds
from penstock.settings import Settings
from penstock.wire.cache import Cache
from penstock_worker.admission.gate import Gate
from penstock_worker.answer_cache import AnswerCache
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip, now
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.slices.line_feed import LineFeed
from penstock_worker.slices.line_request import Outcome, OutcomeKind
from penstock_worker.slices.reuse import Group, grouped, keep, reuse

CHAT = "/v1/chat/completions"


def chat(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "echo", "messages": [{"role": "user", "content": text}], **more}).encode()


def lines(bodies: Sequence[bytes]) -> list[Line]:
    return [Line(number, f"c{number}", CHAT, body) for number, body in enumerate(bodies, 1)]


def ask(supervisor: Supervisor, bodies: Sequence[bytes], **settings: Any) -> list[Record]:
    """What was recorded of these lines, in the order of their numbers."""
    grip = Grip(1, now() + 60)
    made = claim(Lane.STANDARD, "a")
    client = EngineClient(socket=supervisor.launch.socket)
    with LoopThread() as loop, loop.living(client):
        engine = EngineContext(client, Gate(4), supervisor, loop, Settings(**settings))
        feed = LineFeed(engine, made, grouped(lines(bodies), dedup=True), grip)
        records = collected(feed, grip)
        assert engine.gate.in_flight == 0
    return sorted(records, key=lambda record: record.number)


def asked(journal: Path, text: str) -> int:
    """How often the engine was asked this."""
    return sum(entry.split("\t")[2] == text[:80] for entry in journal.read_text().splitlines())


def response(record: Record) -> dict[str, Any]:
    return json.loads(record.line)["response"]


def test_followers_end_as_their_leader_ended(supervisor: Supervisor, journal: Path) -> None:
    records = ask(supervisor, [chat("twice over", temperature=0), chat("alone", temperature=0)] * 3)
    assert (asked(journal, "twice over"), asked(journal, "alone")) == (1, 1)
    assert [record.number for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.reused for record in records] == [None, None, *[ReuseSource.EQUAL] * 4]
    leader, follower = records[0], records[2]
    told, told_again = json.loads(leader.line), json.loads(follower.line)
    assert (told_again["custom_id"], told_again["error"]) == ("c3", None)
    assert told["id"] != told_again["id"]
    assert "cached" not in told["response"]
    assert told_again["response"] == told["response"] | {"cached": True}
    assert leader.usage.reused_output_tokens == 0
    assert follower.usage.reused_output_tokens == follower.usage.output_tokens == leader.usage.output_tokens > 0
    assert follower.usage.equal_input_tokens == follower.usage.input_tokens
    assert follower.usage.cached_tokens == follower.usage.input_tokens == leader.usage.input_tokens > 0


def test_a_refusal_that_would_come_again_is_theirs_too(supervisor: Supervisor, journal: Path) -> None:
    records = ask(supervisor, [chat("no [[status 400]]", temperature=0)] * 3)
    assert asked(journal, "no [[status 400]]") == 1
    assert [(record.failed, response(record)["status_code"]) for record in records] == [(True, 400)] * 3
    assert {record.usage.total_tokens for record in records} == {0}


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        # Each line is asked `line_tries` = 2 times; the third request of the same body is answered.
        ("busy [[status 429 times 2 after 0.01]]", [429, 200, 200]),
        ("broken [[status 500 times 2 after 0.01]]", [500, 200, 200]),
    ],
)
def test_if_the_leader_ended_for_a_reason_that_is_not_its_own_the_next_is_asked(
    supervisor: Supervisor, journal: Path, text: str, ends: list[int]
) -> None:
    records = ask(supervisor, [chat(text, temperature=0)] * 3, line_tries=2)
    assert [response(record)["status_code"] for record in records] == ends
    assert [record.reused for record in records] == [None, None, ReuseSource.EQUAL]
    assert asked(journal, text) == 3


def test_each_is_asked_if_each_before_it_timed_out(supervisor: Supervisor, journal: Path) -> None:
    records = ask(supervisor, [chat("never [[hang]]", temperature=0)] * 2, line_timeout_seconds=1.0)
    assert [json.loads(record.line)["error"]["code"] for record in records] == ["request_timeout"] * 2
    assert asked(journal, "never [[hang]]") == 2


def test_each_is_asked_if_the_connection_broke_each_time(supervisor: Supervisor, journal: Path) -> None:
    records = ask(supervisor, [chat("torn [[break]]", temperature=0)] * 2, line_tries=1)
    assert [json.loads(record.line)["error"]["code"] for record in records] == ["engine_error"] * 2
    assert asked(journal, "torn [[break]]") == 2


def test_what_may_be_answered_otherwise_is_asked_each_time(supervisor: Supervisor, journal: Path) -> None:
    records = ask(supervisor, [chat("as you like")] * 3)
    assert (asked(journal, "as you like"), [record.reused for record in records]) == (3, [None] * 3)


def test_groups_keep_the_order_of_the_plan() -> None:
    bodies = [chat(text, seed=1) for text in "abacbd"]
    groups = [[line.number for line in group.lines] for group in grouped(lines(bodies), dedup=True)]
    assert groups == [[1, 3], [2, 5], [4], [6]]


def test_without_dedup_every_line_is_a_group_of_its_own() -> None:
    bodies = [chat("a", seed=1)] * 3 + [chat("b")] * 2
    groups = grouped(lines(bodies), dedup=False)
    assert [group.lines for group in groups] == [[line] for line in lines(bodies)]
    assert [group.fingerprint is not None for group in groups] == [True] * 3 + [False] * 2


def outcome(body: bytes, status: int = 200) -> Outcome:
    kind = OutcomeKind.ANSWERED if status < 300 else OutcomeKind.REFUSED
    return Outcome(kind, status, body, "req", 1)


def wants(mode: CacheMode = CacheMode.ON, tenant: str = "a", ttl_seconds: int | None = None) -> Claim:
    reuse = Reuse(cache=mode, ttl_seconds=ttl_seconds)
    return dataclasses.replace(claim(Lane.STANDARD, tenant), reuse=reuse)


@contextmanager
def answer_cache(redis_url: str, revision: str = "r1") -> Iterator[AnswerCache]:
    """A worker's answer cache; what was given is stored once it closes."""
    cache = Cache(redis_url, bounds(Settings(cache_timeout_seconds=10.0)))
    one = AnswerCache(cache)
    one.revision = revision
    yield one
    cache.close()


def give(redis_url: str, made: Claim, groups: Sequence[Group], revision: str = "r1") -> None:
    with answer_cache(redis_url, revision) as one:
        for group in groups:
            keep(made, group, outcome(b'{"n":%d}' % group.lines[0].number), one)


def taken(redis_url: str, made: Claim, groups: Sequence[Group], revision: str = "r1") -> tuple[list[bytes], int]:
    with answer_cache(redis_url, revision) as one:
        there, left = reuse(made, [line for group in groups for line in group.lines], one)
        assert {record.reused for record in there} <= {ReuseSource.SHARED}
        return [body_of(record) for record in there], len(left)


def body_of(record: Record) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(record.line)["response"]["body"])


def test_answers_are_taken_by_later_slices(redis_url: str) -> None:
    groups = grouped(lines([chat("a", seed=1), chat("b", seed=1), chat("as you like")]), dedup=True)
    give(redis_url, wants(), groups[:1] + groups[2:])
    assert taken(redis_url, wants(), groups) == ([b'{"n":1}'], 2)
    assert taken(redis_url, wants(CacheMode.REFRESH), groups) == ([], 3)
    assert taken(redis_url, wants(CacheMode.OFF), groups) == ([], 3)


def test_neither_another_tenant_nor_another_revision_takes_them(redis_url: str) -> None:
    groups = grouped(lines([chat("a", seed=1)]), dedup=True)
    give(redis_url, wants(), groups)
    assert taken(redis_url, wants(tenant="b"), groups) == ([], 1)
    assert taken(redis_url, wants(), groups, "r2") == ([], 1)
    assert taken(redis_url, wants(), groups, "") == ([], 1)
    assert taken(redis_url, wants(), groups) == ([b'{"n":1}'], 0)


def test_only_answers_are_given_and_only_if_wanted(redis_url: str) -> None:
    groups = grouped(lines([chat("a", seed=1)]), dedup=True)
    with answer_cache(redis_url) as one:
        keep(wants(), groups[0], outcome(b"{}", 400), one)
        keep(wants(CacheMode.OFF), groups[0], outcome(b"{}"), one)
    give(redis_url, wants(), groups, "")
    assert taken(redis_url, wants(), groups) == ([], 1)
    give(redis_url, wants(CacheMode.REFRESH, ttl_seconds=50), groups)
    assert taken(redis_url, wants(), groups) == ([b'{"n":1}'], 0)
