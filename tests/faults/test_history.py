"""The history checker sees each kind of breach that is planted in a real history, and none where there is none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from e2e.live import CHAT, chat
from faults import history
from faults.history import Accepted, Line, Verdict
from faults.house import MODEL, House
from faults.panel_load import PanelLoad

from penstock.service.admin import models, prices
from penstock.service.core.transaction import Database
from penstock.store.engine import sync_engine

pytestmark = pytest.mark.timeout(300)


@dataclass
class Past:
    """Everything that happened in a house, which can be falsified and is put right again after each test."""

    house: House
    accepted: list[Accepted]
    journal: Path

    def judge(self) -> Verdict:
        clients = {tenant: self.house.client_of(tenant) for tenant in ("default", "other")}
        return history.judge(self.house.database_url, self.accepted, clients, self.house.blobs, self.journal)

    def sql(self, statement: str, *values: Any) -> None:
        """Change something that the triggers forbid to change."""
        with psycopg.connect(self.house.database_url, options="-c session_replication_role=replica") as connection:
            done = connection.execute(statement, values or self.names)  # type: ignore[arg-type]
            assert done.rowcount > 0, "nothing was planted"

    @property
    def batch(self) -> str:
        """A batch with an output and an error file."""
        return self.accepted[0].id

    @property
    def names(self) -> dict[str, str]:
        """For statements: a batch, a job of another tenant, a batch of ensembles."""
        return {"batch": self.batch, "job": self.accepted[2].id, "panels": self.accepted[3].id}

    def file(self, which: str, batch: str) -> tuple[str, Path]:
        """The id and the bytes of its output or error file."""
        ((id, key),) = self.house.rows(
            f"select f.id, f.blob_key from batches b join files f on f.id = b.{which}_file where b.id = %s", batch
        )
        return id, self.house.blobs / key

    def rewrite(self, which: str, change: Callable[[list[Any]], list[Any]], batch: str = "") -> None:
        """Change the lines of its output or error file."""
        id, path = self.file(which, batch or self.batch)
        lines = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.sql("update files set bytes = %s where id = %s", path.stat().st_size, id)


@pytest.fixture(scope="module")
def house(shared_database_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("history")
    with House(
        shared_database_url,
        valkey_url,
        folder,
        engine_arguments=["--latency-ms=20", f"--journal={folder / 'journal'}"],
        flush_seconds="0.1",
        close_grace_seconds="0.5",
        beat_seconds="0.5",
        slice_lines="20",
    ) as house:
        db = Database(sync_engine(house.database_url, connections=1), lambda hints: None)
        db.run(models.add, MODEL)
        db.run(prices.set_price, MODEL, input="0.15", cached_input="0.015", output="0.6", gpu_second="0.0008")
        db.close()
        yield house


@pytest.fixture(scope="module")
def whole(house: House) -> list[Accepted]:
    """Three batches, one cancelled midway, one of ensembles, and another tenant's job; then only the API is left."""
    ours, theirs = house.client_of("default"), house.client_of("other")
    lines = [Line(f"a{n}", f"first {n} {'[[status 400]]' if n % 10 == 3 else ''}") for n in range(60)]
    slow = [Line(f"b{n}", f"second {n} {'[[sleep 20000]]' if n > 30 else ''}") for n in range(60)]
    job = [Line(f"c{n}", f"third {n}") for n in range(3)]
    first, second = (ours.submit([chat(line.custom_id, line.text) for line in some]).id for some in (lines, slow))
    body = {
        "endpoint": CHAT,
        "requests": [{"custom_id": one.custom_id, "body": chat("", one.text)["body"]} for one in job],
    }
    third = theirs.http.post("/jobs", json=body).json()["id"]
    ours.watched(second, lambda batch: bool(batch.request_counts and batch.request_counts.completed), "answers")
    ours.sdk.batches.cancel(second)
    panels = PanelLoad.submit(house, "fourth", 60)
    ours.ended(panels.id)
    ours.ended(first)
    ours.ended(second)
    house.until(lambda: theirs.http.get(f"/jobs/{third}").json()["status"] == "completed", "the job has ended")
    for name in house.residents:
        if name != "api-1":
            house.kill(name)
    house.sql("create schema kept")
    for table in tables(house):
        house.sql(f"create table kept.{table} as table public.{table}")
    shutil.copytree(house.blobs, house.folder / "kept")
    return [
        Accepted("default", "batch", first, lines),
        Accepted("default", "batch", second, slow, cancelled=True),
        Accepted("other", "job", third, job),
        Accepted("default", "batch", panels.id, panels.lines),
    ]


def tables(house: House) -> list[str]:
    rows = house.rows("select tablename from pg_tables where schemaname = 'public' and tablename <> 'alembic_version'")
    return sorted(name for (name,) in rows)


@pytest.fixture
def past(house: House, whole: list[Accepted]) -> Iterator[Past]:
    yield Past(house, [replace(one) for one in whole], house.folder / "journal")
    with psycopg.connect(house.database_url, options="-c session_replication_role=replica") as connection:
        for table in tables(house):  # no truncate: it would wait for the API that reads, and the API for it
            connection.execute(f"delete from {table}")  # type: ignore[arg-type]
            connection.execute(f"insert into {table} overriding system value table kept.{table}")  # type: ignore[arg-type]
    shutil.rmtree(house.blobs)
    shutil.copytree(house.folder / "kept", house.blobs)


def test_a_history_without_faults_has_no_breach(past: Past) -> None:
    verdict = past.judge()
    assert verdict.breaches == []
    assert verdict.batches == {"completed": 3, "cancelled": 1}
    assert (verdict.accepted, verdict.lost, verdict.doubled, verdict.recomputed) == (183, 0, 0, 0)
    assert verdict.answered + sum(verdict.failed.values()) == 183
    assert verdict.failed["400"] == 6
    assert verdict.failed["batch_cancelled"] > 0
    assert history.leftovers(past.house.database_url, past.house.blobs, past.house.scratch) == []


# What is planted in rows, and what the checker says of it.
IN_ROWS = {
    "a wrong count": (
        "counts .* and its files hold",
        "update batches set completed = completed - 1, failed = failed + 1 where id = %(batch)s",
    ),
    "a wrong bill": ("was billed", "update batches set output_tokens = output_tokens + 1 where id = %(batch)s"),
    "a wrong charge": ("was charged", "update batches set token_cost = token_cost + 1 where id = %(batch)s"),
    "a segment that cost another price": ("costs what its price says", "update segments set gpu_cost = gpu_cost + 1"),
    "usage that counts a line twice": (
        "by its usage, and",
        "insert into usage_lines select 'default', 'tiny', date_trunc('hour', now()), 1, 3, 0, 2, 0, 0, 0, 0, 0",
    ),
    "a slice that counts wrong": ("counts and usage are the sums", "update slices set failed = 0 where failed > 0"),
    "a batch that was forgotten": ("is now 404", "update batches set id = 'batch_x' where id = %(batch)s"),
    "another's batch": ("another tenant and hears 200", "update batches set tenant = 'default' where id = %(job)s"),
    "a move that is not in the trail": (
        "the trail of moves is a chain",
        "delete from trail where becomes = 'running' and batch = %(batch)s",
    ),
    "a move that is not legal": (
        "the trail of moves is a chain",
        "insert into trail (batch, was, becomes) values (%(batch)s, 'completed', 'failed')",
    ),
    "a wrong birth": (
        "a trail does not begin at its birth",
        "update trail set becomes = 'in_progress' where slice is null and was is null and batch = %(batch)s",
    ),
    "a move after the end": (
        "moved or was recorded after its end",
        "insert into trail (batch, slice, was, becomes) select batch, id, 'done', 'queued' from slices limit 1",
    ),
    "a segment after the end": ("moved or was recorded after its end", "update segments set created_at = now()"),
    "a segment under a lost lease": ("while its lease was not the slice's", "update segments set created_at = now()"),
    "a segment before its lease": (
        "while its lease was not the slice's",
        "update segments set created_at = created_at - interval '1 h'",
    ),
    "a slice that went back to an older lease": (
        "given to an older lease",
        "insert into trail (batch, slice, was, becomes, lease)"
        " select batch, slice, was, becomes, 0 from trail where becomes = 'running'",
    ),
    "tokens that fall": ("does not hold that tokens never fall", "{again}"),
    "a line in two segments": ("does not hold that no line is in two segments", "{again}"),
    "an end without its event": ("its one event", "delete from events where batch = %(batch)s"),
    "an end with two events": (
        "its one event",
        "insert into events (id, tenant, batch, type) values ('evt', 'default', %(batch)s, 'batch.failed')",
    ),
    "a lease that is open": ("a lease is open", "update leases set closed_at = null, closed_as = null"),
    "a batch that never ends": ("has not ended", "update batches set state = 'finalizing' where id = %(batch)s"),
    "a wave that was cut twice": (
        "its wave was cut twice",
        "insert into trail (batch, slice, was, becomes)"
        " select batch, slice, was, becomes from trail where was = 'waiting' and becomes = 'queued'",
    ),
    "a fold that ran while its member did": (
        "a fold ran while a member of its was at work",
        "delete from trail where was = 'running' and becomes = 'done'"
        " and slice in (select id from slices where place = 1)",
    ),
    "a member that went on after its fold was settled": (
        "a member moved after its fold was settled",
        "insert into trail (batch, slice, was, becomes)"
        " select batch, id, 'queued', 'ready' from slices where place = 2",
    ),
    "a member's answer that came too late": (
        "answered a line that was folded already",
        "update segments set created_at = created_at + interval '1 h'"
        " where slice in (select id from slices where place = 1)",
    ),
    "a member that answered before it was asked": (
        "answered before it was asked",
        "update slices set released_at = released_at + interval '1 h' where picked is not null",
    ),
    "a member that nobody asked": (
        "was never asked, and answered",
        "update slices set picked = null, released_at = null where picked is not null",
    ),
    "a later member that did not wait": (
        "a trail does not begin at its birth",
        "update trail set becomes = 'queued' where was is null and becomes = 'waiting'"
        " and slice in (select id from slices where place = 1)",
    ),
    "a member's answer that is gone": (
        "was asked of .* and needs",
        "delete from segments where slice in (select id from slices where place = 1)",
    ),
    "a line that was asked of members that it did not need": (
        "was asked of .* and needs .* at most",
        "update slices set place = 3 - place where picked is not null",
    ),
    "a bill without the members": (
        "was billed",
        "update batches set input_tokens = input_tokens / 2 where id = %(panels)s",
    ),
    "a blob that is gone": (
        "is not there, and a row names it",
        "update segments set blob_key = 'x' where id = (select min(id) from segments where data is null)",
    ),
    "a file that is gone": (
        "shows a file that can't be read",
        "update files set blob_key = id where purpose <> 'batch'",
    ),
}
AGAIN = """
    insert into segments (slice, lease, seq, data, bytes, lines, failed_lines, completed, failed,
                          input_tokens, cached_tokens, output_tokens, reasoning_tokens)
    select slice, 0, 99, 'x', bytes, lines, failed_lines, completed, failed,
           input_tokens, cached_tokens, output_tokens, reasoning_tokens from segments limit 1"""


@pytest.mark.parametrize("planted", IN_ROWS)
def test_it_sees_what_is_planted_in_rows(past: Past, planted: str) -> None:
    meaning, statement = IN_ROWS[planted]
    past.sql(statement.replace("{again}", AGAIN))
    assert seen(past, meaning)


# What is planted in files: how their lines change.
Lines = list[dict[str, Any]]


def crashed(line: dict[str, Any], **more: Any) -> dict[str, Any]:
    return line | {"response": None, "error": {"code": "engine_crash", "message": ""}} | more


def in_other_words(line: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(line).replace("first", "fifth")))


IN_FILES: dict[str, tuple[str, str, Callable[[Lines], Lines]]] = {
    "a lost line": ("a1 of .* is lost", "output", lambda lines: [lines[0], *lines[2:]]),
    "a doubled line": ("a0 of .* is there 2 times", "output", lambda lines: [lines[0], *lines]),
    "a line in both files": ("a0 of .* 2 times", "error", lambda lines: [crashed(lines[0], custom_id="a0"), *lines]),
    "another line's answer": ("a0 .* as 200", "output", lambda lines: [in_other_words(lines[0]), *lines[1:]]),
    "a line that nobody sent": ("z is .* never sent", "output", lambda lines: [*lines, lines[0] | {"custom_id": "z"}]),
    "one id twice": ("have one id", "output", lambda lines: [lines[0], lines[1] | {"id": lines[0]["id"]}, *lines[2:]]),
    "lines in disorder": ("the output file .* not in input order", "output", lambda lines: lines[::-1]),
    "an innocent line that crashed": ("a3 .* engine_crash", "error", lambda lines: [crashed(lines[0]), *lines[1:]]),
    "a refusal among the answers": ("in the wrong file", "output", lambda lines: [crashed(lines[0]), *lines[1:]]),
}


@pytest.mark.parametrize("planted", IN_FILES)
def test_it_sees_what_is_planted_in_files(past: Past, planted: str) -> None:
    meaning, which, change = IN_FILES[planted]
    past.rewrite(which, change)
    assert seen(past, meaning)


# What is planted in answers of ensembles: how one of them changes.
Answer = dict[str, Any]


def other_winner(answer: Answer) -> None:
    answer["penstock"]["winner"] = "tiny#3"


def one_tells_more(answer: Answer) -> None:
    answer["penstock"]["members"][0]["tokens"] += 1


def one_is_missing(answer: Answer) -> None:
    del answer["penstock"]["members"][-1]


def less_used(answer: Answer) -> None:
    answer["usage"]["prompt_tokens"] -= 1


def another_text(answer: Answer) -> None:
    answer["choices"][0]["message"]["content"] += "?"


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (other_winner, "has the trace .* and its verdict is"),
        (one_tells_more, "says of member 0"),
        (one_is_missing, "tells of members"),
        (less_used, "used .* and its members"),
        (another_text, "says 'line 0 of fourth please\\?'"),
    ],
)
def test_it_sees_an_ensembles_answer_that_is_not_its_members(
    past: Past, change: Callable[[Answer], None], meaning: str
) -> None:
    def changed(lines: Lines) -> Lines:
        change(lines[0]["response"]["body"])
        return lines

    past.rewrite("output", changed, past.accepted[3].id)
    assert seen(past, f"fourth-0 of .* {meaning}")


def test_it_sees_an_ensembles_line_that_failed_though_it_has_a_verdict(past: Past) -> None:
    def quorum(line: Answer) -> Answer:
        return line | {"response": None, "error": {"code": "ensemble_quorum", "message": ""}}

    past.rewrite("output", lambda lines: [quorum(lines[0]), *lines[1:]], past.accepted[3].id)
    assert seen(past, "fourth-0 of .* has an answer of member 0")


def seen(past: Past, meaning: str) -> list[str]:
    breaches = past.judge().breaches
    assert any(re.search(meaning, breach) for breach in breaches), breaches
    return breaches


def test_lost_and_doubled_lines_are_counted_and_only_a_few_spelled_out(past: Past) -> None:
    past.rewrite("output", lambda lines: [*lines[20:], lines[20]])
    verdict = past.judge()
    assert (verdict.lost, verdict.doubled) == (20, 1)
    assert "… and 20 more like it" in verdict.breaches  # the lines, and what they were charged
    assert len(verdict.breaches) < 15


def test_it_sees_what_was_sent_otherwise_than_it_ended(past: Past) -> None:
    first, second, *_ = past.accepted
    second.cancelled = False
    assert seen(past, f"{second.id} ended as cancelled, which nobody asked for")
    first.lines = [*first.lines[:5], Line("a5", "first 5 [[die]]"), *first.lines[6:]]
    assert seen(past, "a5 of .* ended as 200")
    del past.accepted[0]
    assert seen(past, "default was never told of")


def test_it_sees_blobs_intents_and_scratch_that_a_sweep_should_have_taken(past: Past) -> None:
    house = past.house
    (house.blobs / "acme").mkdir()
    for name in ("cut#1", "known"):
        (house.blobs / "acme" / name).touch()
    (left := house.scratch / "io-1" / "assemble-x").touch()
    house.sql("insert into intents (blob_key) values ('acme/known')")
    found = history.leftovers(house.database_url, house.blobs, house.scratch)
    left.unlink()
    assert found == [
        "nobody will ever sweep the blob acme/cut",
        "an intent outlives the sweep: acme/known",
        f"left on scratch: {left}",
    ]


def test_questions_beyond_the_first_of_each_line_are_counted(past: Past, tmp_path: Path) -> None:
    past.journal = tmp_path / "journal"
    texts = ["first 1 ", "first 1 ", "third 2", "something else", "first 1 "]
    past.journal.write_text("".join(f"1.0\t7\t{text}\n" for text in texts))
    verdict = past.judge()
    assert (verdict.asked, verdict.recomputed) == (4, 2)


def test_recovery_is_counted_from_the_kill_to_the_next_run(past: Past) -> None:
    holder = uuid4()
    ((slice,),) = past.house.rows("select min(id) from slices")
    past.sql(
        "insert into leases overriding system value select 900, kind, slice, batch, %s, gen_random_uuid(),"
        " to_timestamp(90), expires_at, closed_at, closed_as from leases where slice = %s",
        holder,
        slice,
    )
    for at, was, becomes, lease in (
        (110, "running", "queued", 900),
        (111, "queued", "ready", 900),
        (115, "ready", "running", 901),
    ):
        past.sql(
            "insert into trail (at, batch, slice, was, becomes, lease) values (to_timestamp(%s), 'b', %s, %s, %s, %s)",
            at,
            slice,
            was,
            becomes,
            lease,
        )
    assert history.recoveries(past.house.database_url, [(holder, 100.0)]) == ([10.0], [15.0])
    assert history.recoveries(past.house.database_url, [(holder, 80.0), (holder, 112.0)]) == ([], [])
