"""Answers read while they are recorded: a cursor neither skips nor repeats, whatever is recorded in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults.cases import further
from service import broom
from service.answers_reader import Library, Reader, library
from service.desk import Desk, request
from sqlalchemy import Connection
from store import as_holder
from store.two import held
from store.world import World

from penstock.domain.api_errors import BadRequest, Gone, NotFound
from penstock.domain.work.slice import Claim
from penstock.formats import output
from penstock.formats.output import Record
from penstock.service.control import erasure
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import work

LIMITS = (1, 7, 10_000)


@pytest.fixture
def shelf(desk: Desk) -> Iterator[Library]:
    with library(desk) as one:
        yield one


def content(count: int) -> bytes:
    """So many requests."""
    return b"\n".join(request(f"q{n}") for n in range(1, count + 1))


def records(claim: Claim, numbers: Sequence[int]) -> list[Record]:
    """Answers of these lines, in this order; every fifth is refused."""
    body = b'{"text":"%s"}' % (b"x" * 300)
    return [
        output.answered(claim.batch, n, f"q{n}", 400 if n % 5 == 0 else 200, f"lease {claim.lease}", body)
        for n in numbers
    ]


def put(desk: Desk, claim: Claim, seq: int, numbers: Sequence[int]) -> work.SliceAnswers:
    """What a worker does before it records: the segment's blob, under its intent."""
    key = blob_key("acme", "segments")
    desk.world.db.run(work.intend, key)
    answers = work.SliceAnswers(claim, seq, records(claim, numbers), key)
    desk.blobs.put(key, answers.framed)
    return answers


def flush(desk: Desk, claim: Claim, seq: int, *numbers: int) -> None:
    """Record these lines."""
    answers = put(desk, claim, seq, numbers)
    assert not desk.world.db.run(work.record, [answers], [])


def files(desk: Desk, batch: str) -> list[bytes]:
    """All lines of the output and the error file, sorted."""
    both = b"".join(desk.result(batch, which) or b"" for which in ("output", "error"))
    return sorted(both.splitlines(keepends=True))


class Workers:
    """Several at once, whose commits come in any order: a flush is a connection that was not committed yet."""

    def __init__(self, desk: Desk, batch: str, chance: random.Random) -> None:
        self.desk = desk
        self.batch = batch
        self.chance = chance
        self.holder = desk.world.worker()
        self.left: dict[int, list[int]] = {}
        self.claims: dict[int, Claim] = {}
        self.seqs: dict[int, int] = {}
        self.flushing: dict[int, tuple[Connection, list[int]]] = {}

    def claim(self) -> None:
        claim = self.desk.world.claim(self.holder)
        if claim:
            numbers = [n for n in range(claim.first_line, claim.last_line + 1) if n not in claim.recorded]
            self.chance.shuffle(numbers)
            self.claims[claim.slice], self.left[claim.slice], self.seqs[claim.slice] = claim, numbers, 0

    def flush(self) -> None:
        free = [slice for slice in self.claims if self.left[slice] and slice not in self.flushing]
        if not free or len(self.flushing) == 3:
            return
        slice = self.chance.choice(free)
        count = self.chance.randint(1, len(self.left[slice]))
        numbers, self.left[slice] = self.left[slice][:count], self.left[slice][count:]
        self.seqs[slice] += 1
        answers = put(self.desk, self.claims[slice], self.seqs[slice], numbers)
        connection = self.desk.world.db.engine.connect()
        connection.begin()
        assert not work.record(Transaction(connection), [answers], [])
        self.flushing[slice] = connection, numbers

    def end_flush(self, slice: int, how: str) -> None:
        connection, numbers = self.flushing.pop(slice)
        if how == "commit":
            connection.commit()
        else:
            connection.rollback()
            self.left[slice] += numbers
        connection.close()

    def end_one(self) -> None:
        if self.flushing:
            self.end_flush(
                self.chance.choice(list(self.flushing)), self.chance.choice(["commit", "commit", "rollback"])
            )

    def settle(self) -> None:
        for slice, claim in list(self.claims.items()):
            if not self.left[slice] and slice not in self.flushing:
                self.desk.world.db.run(as_holder.settle, claim)
                del self.claims[slice]

    def crash(self) -> None:
        """All fall silent: what they had not recorded is somebody else's, and their late writes are refused."""
        while self.flushing:
            self.end_one()
        self.desk.world.reap(self.batch)
        for slice, claim in list(self.claims.items()):
            if self.left[slice]:
                late = put(self.desk, claim, 99, self.left[slice])
                assert self.desk.world.db.run(work.record, [late], []) == {claim.lease}
        self.claims.clear()
        self.holder = self.desk.world.worker()

    def finish(self) -> None:
        while self.flushing:
            self.end_one()
        for _ in range(99):
            self.settle()
            if not self.claims:
                self.claim()
            if not self.claims:
                return
            self.flush()
            for slice in list(self.flushing):
                self.end_flush(slice, "commit")


@pytest.mark.parametrize("ends", ["completed", "cancelled"])
@pytest.mark.parametrize("seed", [*range(3), *further(*range(3, 12))])
def test_a_cursor_neither_skips_nor_repeats_whatever_is_recorded_in_which_order(
    desk: Desk, shelf: Library, seed: int, ends: str
) -> None:
    chance = random.Random(f"{seed} {ends}")
    batch = desk.validate(content(chance.randint(1, 40)))
    workers = Workers(desk, batch, chance)
    readers = [Reader(shelf, batch, limit) for limit in LIMITS]
    moves = [workers.claim, workers.flush, workers.flush, workers.end_one, workers.end_one, workers.settle]
    moves += 2 * [reader.read for reader in readers]
    for _ in range(chance.randint(20, 100)):
        chance.choice(moves)()
        if chance.random() < 0.03:
            workers.crash()
    if ends == "completed":
        workers.finish()
    else:
        workers.crash()
        if desk.world.find(batch).state == "in_progress":  # else every line happened to be answered
            desk.world.cancel(batch)
    if desk.world.find(batch).state == "finalizing":
        desk.assemble(batch)
    assert desk.world.find(batch).ended
    for reader in readers:
        reader.read_all()
        assert sorted(reader.lines) == files(desk, batch)
    assert readers[0].lines == readers[1].lines == readers[2].lines


def test_an_answer_whose_commit_is_late_is_waited_for_and_what_began_later_is_not(
    desk: Desk, world: World, shelf: Library
) -> None:
    batch = desk.validate(content(12))
    worker = world.worker()
    slow, quick, later = (world.claimed(worker) for _ in range(3))
    answers, more = put(desk, slow, 1, [1, 2]), put(desk, later, 1, [9])
    with ThreadPoolExecutor(1) as pool, held(world, lambda tx: work.record(tx, [answers], [])) as (_, first):
        flush(desk, quick, 1, 6, 5)
        assert shelf.read(batch, 0, 10) == ([], 0, True), "what is not certain to be the next is not told"
        shelf.db.forget()
        waits = pool.submit(shelf.read, batch, 0, 10, patience_seconds=30.0)
        shelf.db.looked(4)  # the batch, the last id, who is recording, and whether they still are
        with held(world, lambda tx: work.record(tx, [more], [])):
            first.go_on()
            lines, last, incomplete = waits.result(20)
    assert [output.parse(line)["custom_id"] for line in lines] == ["q1", "q2", "q6", "q5"]
    assert (last, incomplete) == (4, True)
    assert [output.parse(line)["custom_id"] for line in shelf.read(batch, 4, 10)[0]] == ["q9"]


def test_a_page_may_begin_and_end_within_segments(desk: Desk, world: World, shelf: Library) -> None:
    batch = desk.validate(content(12))
    worker = world.worker()
    for _ in range(3):
        claim = world.claimed(worker)
        flush(desk, claim, 1, *range(claim.first_line, claim.last_line + 1))
    for after in range(13):
        for limit in range(1, 14):
            lines, last, _ = shelf.read(batch, after, limit)
            wanted = [f"q{n}" for n in range(after + 1, min(12, after + limit) + 1)]
            assert [output.parse(line)["custom_id"] for line in lines] == wanted
            assert last == after + len(wanted)


def test_lines_without_an_answer_come_last_and_a_page_may_begin_and_end_among_them(
    desk: Desk, world: World, shelf: Library
) -> None:
    batch = desk.validate(content(14))
    worker = world.worker()
    first, second = world.claimed(worker), world.claimed(worker)
    flush(desk, second, 1, 7)
    flush(desk, first, 1, 4, 2)
    world.reap(batch)
    world.cancel(batch)
    assert shelf.read(batch, 3, 99) == ([], 3, True), "what has no answer yet may still get one"
    desk.assemble(batch)
    everything, last, incomplete = shelf.read(batch, 0, 99)
    ids = [output.parse(line)["custom_id"] for line in everything]
    assert ids == ["q7", "q4", "q2"] + [f"q{n}" for n in (1, 3, 5, 6, 8, 9, 10, 11, 12, 13, 14)]
    assert (last, incomplete) == (14, False)
    assert sorted(everything) == files(desk, batch)
    for after in range(15):
        for limit in (1, 2, 3, 5, 8):
            end = min(14, after + limit)
            assert shelf.read(batch, after, limit) == (everything[after:end], end, end < 14)


def test_a_batch_without_a_plan_has_no_lines_and_one_that_failed_is_complete(desk: Desk, shelf: Library) -> None:
    batch = desk.batch(content(2))
    assert shelf.read(batch, 0, 10) == ([], 0, True)
    broken = desk.validate(b"{}")
    assert shelf.read(broken, 0, 10) == ([], 0, False)
    with pytest.raises(BadRequest, match="'after'"):
        shelf.read(broken, 1, 10)


def test_a_batch_whose_assembly_was_given_up_can_be_read_here_alone(desk: Desk, world: World, shelf: Library) -> None:
    batch = desk.validate(content(6))
    claim = world.claimed(world.worker())
    flush(desk, claim, 1, 1, 2)
    world.reap(batch)
    world.cancel(batch)
    found, lease = world.claim_batch(batch, "assemble")
    world.db.run(work.give_up, found.id, lease)
    lines, last, incomplete = shelf.read(batch, 0, 10)
    said = [output.parse(line) for line in lines]
    assert [line["custom_id"] for line in said] == ["q1", "q2", "q3", "q4", "q5", "q6"]
    assert {line["error"]["code"] for line in said[2:]} == {"internal_error"}
    assert (last, incomplete) == (6, False)


def test_after_the_sweep_the_order_is_gone_and_that_is_said_at_its_first_step(
    desk: Desk, world: World, shelf: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.validate(content(12))
    desk.answer(batch)
    desk.assemble(batch)
    assert shelf.read(batch, 5, 3)[1:] == (8, True)
    monkeypatch.setattr("penstock.service.admin.sweep.MOST", 1)
    broom.once(desk)
    assert world.one("select count(*) from segments") == 2
    while True:
        for after in (0, 5, 12):
            with pytest.raises(Gone) as gone:
                shelf.read(batch, after, 3)
            assert gone.value.code == "results_in_files"
        if not world.one("select count(*) from leftovers"):
            break
        broom.once(desk)


@pytest.mark.parametrize("how", ["while it runs", "once it has ended", "without an answer of some"])
def test_while_a_batch_is_erased_step_by_step_a_page_is_right_or_it_is_not_there(
    desk: Desk, world: World, shelf: Library, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("penstock.service.control.erasure.MOST", 1)
    batch = desk.validate(content(12))
    desk.answer(batch, slices=2 if how == "without an answer of some" else 3)
    if how == "without an answer of some":
        world.cancel(batch)
    if how != "while it runs":
        desk.assemble(batch)
    lines = shelf.read(batch, 0, 12)[0]
    erased = world.db.run(erasure.begin, "acme").id
    seen = set()
    while True:
        for after in range(13):
            try:
                page, last, incomplete = shelf.read(batch, after, 3)
            except (NotFound, Gone) as error:
                seen.add(type(error))
                continue
            assert page in ([], lines[after : after + 3])
            assert last == after + len(page)
            assert incomplete == (how == "while it runs" or last < 12)
            seen.add(None)
        if not world.db.run(erasure.step, erased, world.settings):
            break
    assert not world.rows("select from batches")
    assert seen == {None, Gone, NotFound}


def test_nobody_reads_another_tenants_answers(desk: Desk, world: World, shelf: Library) -> None:
    world.tenant("other")
    batch = desk.validate(content(2))
    desk.answer(batch)
    with pytest.raises(NotFound):
        shelf.read(batch, 0, 10, tenant="other")
