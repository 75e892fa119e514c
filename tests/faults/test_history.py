"""The history checker sees each kind of breach that is planted in a real history, and none where there is none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from e2e.live import CHAT, chat
from faults import leftovers, recovery
from faults.accepted import Accepted, Line
from faults.cases import every_third
from faults.house import MODEL, House
from faults.panel_load import PanelLoad
from faults.past import Past
from faults.planted import AGAIN, IN_ANSWERS, IN_FILES, IN_ROWS, Lines

from penstock.service.admin import models, prices
from penstock.service.core.transaction import Database
from penstock.store.engine import sync_engine

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


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
    assert leftovers.leftovers(past.house.database_url, past.house.blobs, past.house.scratch) == []


@pytest.mark.parametrize("planted", every_third(IN_ROWS))
def test_it_sees_what_is_planted_in_rows(past: Past, planted: str) -> None:
    meaning, statement = IN_ROWS[planted]
    past.sql(statement.replace("{again}", AGAIN))
    assert seen(past, meaning)


@pytest.mark.parametrize("planted", every_third(IN_FILES))
def test_it_sees_what_is_planted_in_files(past: Past, planted: str) -> None:
    meaning, which, change = IN_FILES[planted]
    past.rewrite(which, change)
    assert seen(past, meaning)


@pytest.mark.parametrize("planted", every_third(IN_ANSWERS))
def test_it_sees_an_ensembles_answer_that_is_not_its_members(past: Past, planted: str) -> None:
    meaning, at, change = IN_ANSWERS[planted]

    def changed(lines: Lines) -> Lines:
        change(next(line for line in lines if line["custom_id"] == f"fourth-{at}")["response"]["body"])
        return lines

    past.rewrite("output", changed, past.accepted[3].id)
    assert seen(past, f"fourth-{at} of .* {meaning}")


def test_it_sees_an_ensembles_line_that_failed_though_it_has_a_verdict(past: Past) -> None:
    def quorum(line: dict[str, Any]) -> dict[str, Any]:
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
    found = leftovers.leftovers(house.database_url, house.blobs, house.scratch)
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
    assert recovery.recoveries(past.house.database_url, [(holder, 100.0)]) == ([10.0], [15.0])
    assert recovery.recoveries(past.house.database_url, [(holder, 80.0), (holder, 112.0)]) == ([], [])
