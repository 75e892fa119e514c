"""Assembly: every line once, in input order, and the same bytes however often it runs."""

from __future__ import annotations

import pytest
from service.desk import Desk, request
from store import as_holder
from store.world import World

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import BatchState
from penstock.formats import output
from penstock.service.admin import models
from penstock.service.core.ids import blob_key
from penstock.service.lifecycle import work
from penstock.service.results import assemble
from penstock.settings import Settings


def ids(data: bytes | None) -> list[str]:
    """The custom_ids of a result file, in order."""
    return [output.parse(line)["custom_id"] for line in (data or b"").splitlines()]


def twelve(*, models: tuple[str, ...] = ("tiny",)) -> bytes:
    """Twelve requests."""
    return b"\n".join(request(f"q{n}", model=models[n % len(models)]) for n in range(1, 13))


def test_answers_of_several_models_come_in_input_order(desk: Desk, world: World) -> None:
    world.db.run(models.add, "other")
    batch = desk.validate(twelve(models=("tiny", "other")))
    desk.answer(batch, "other")
    desk.answer(batch, "tiny")
    done = desk.assemble(batch)
    assert (done.state, done.answered, done.failed) == (BatchState.COMPLETED, 12, 0)
    assert ids(desk.result(batch, "output")) == [f"q{n}" for n in range(1, 13)]
    assert desk.result(batch, "error") is None
    found = world.find(batch)
    assert (found.completed, found.failed, found.error_file) == (12, 0, None)


def test_lines_that_the_engine_refused_go_to_the_error_file_with_their_answer(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch, failed=frozenset({3, 11}))
    done = desk.assemble(batch)
    assert (done.answered, done.failed) == (10, 2)
    assert ids(desk.result(batch, "error")) == ["q3", "q11"]
    first = output.parse((desk.result(batch, "error") or b"").splitlines()[0])
    assert (first["response"]["status_code"], first["response"]["body"], first["error"]) == (400, {"n": 3}, None)
    assert world.find(batch).state is BatchState.COMPLETED


def test_a_batch_whose_lines_all_failed_is_completed_without_an_output_file(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch, failed=frozenset(range(1, 13)))
    desk.assemble(batch)
    found = world.find(batch)
    assert (found.state, found.output_file, found.completed, found.failed) == (BatchState.COMPLETED, None, 0, 12)


@pytest.mark.parametrize(
    ("close", "state", "code"),
    [("cancel", BatchState.CANCELLED, "batch_cancelled"), ("expire", BatchState.EXPIRED, "batch_expired")],
)
def test_what_was_not_answered_says_why(desk: Desk, world: World, close: str, state: BatchState, code: str) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch, slices=1)
    getattr(world, close)(batch)
    done = desk.assemble(batch)
    assert (done.state, done.answered, done.failed) == (state, 4, 8)
    errors = [output.parse(line) for line in (desk.result(batch, "error") or b"").splitlines()]
    assert [error["custom_id"] for error in errors] == [f"q{n}" for n in range(5, 13)]
    assert {(error["error"]["code"], error["response"]) for error in errors} == {(code, None)}
    assert ids(desk.result(batch, "output")) == ["q1", "q2", "q3", "q4"]


def test_a_cancelled_batch_without_any_answer_has_an_error_file_only(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve())
    world.cancel(batch)
    desk.assemble(batch)
    assert world.find(batch).output_file is None
    assert len(ids(desk.result(batch, "error"))) == 12


def test_running_it_twice_gives_the_same_bytes_and_ends_the_batch_once(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch, slices=2, failed=frozenset({2}))
    world.cancel(batch)
    found, lease = world.claim_batch(batch, "assemble")
    world.reap(batch)  # its holder is thought dead, and is not
    desk.assemble(batch)
    with pytest.raises(LeaseLost):
        assemble.assemble(world.db, desk.blobs, found, lease, world.settings)
    late = [row.blob_key for row in world.rows("select blob_key from intents order by created_at")]
    kept = world.rows("select blob_key, index_key from files where purpose = 'batch_output' order by filename desc")
    assert [desk.blobs.read(key) for key in late] == [desk.blobs.read(key) for row in kept for key in row]
    assert world.events(batch) == ["batch.cancelled"]
    assert world.one("select count(*) from files where purpose = 'batch_output'") == 2


def test_an_assembly_leaves_nothing_on_scratch_and_no_intents(desk: Desk, world: World, settings: Settings) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch)
    desk.assemble(batch)
    assert list(settings.scratch_dir.iterdir()) == []
    assert world.one("select count(*) from intents") == 0


def test_the_results_expire_as_the_batch_asked(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve(), output_expires_seconds=7_200)
    desk.answer(batch)
    desk.assemble(batch)
    query = "select extract(epoch from expires_at - created_at)::int from files where purpose = 'batch_output'"
    assert world.one(query) == 7_200


def test_blank_lines_of_the_input_do_not_shift_the_answers(desk: Desk) -> None:
    batch = desk.validate(b"\n\n" + request("a") + b"\r\n\r\n" + request("b") + b"\n\n")
    desk.answer(batch, failed=frozenset({5}))
    desk.assemble(batch)
    assert (ids(desk.result(batch, "output")), ids(desk.result(batch, "error"))) == (["a"], ["b"])


def test_only_one_of_three_assemblers_ends_the_batch(desk: Desk, world: World) -> None:
    batch = desk.validate(twelve())
    desk.answer(batch)
    late = []
    for _ in range(2):
        late.append(world.claim_batch(batch, "assemble"))
        world.reap(batch)
    desk.assemble(batch)
    before = (desk.result(batch, "output"), world.find(batch))
    for found, lease in late:
        with pytest.raises(LeaseLost):
            assemble.assemble(world.db, desk.blobs, found, lease, world.settings)
    assert (desk.result(batch, "output"), world.find(batch)) == before


def test_empty_answers_are_counted_while_it_runs_and_frozen_with_their_first_lines(desk: Desk, world: World) -> None:
    empty = b'{"choices":[{"finish_reason":"length","message":{"content":null}}]}'
    batch = desk.validate(b"\n".join(request(f"q{n}") for n in range(1, 31)))
    worker = world.worker()
    for _ in range(5):
        claim = world.claimed(worker)
        numbers = range(claim.first_line, claim.last_line + 1)
        records = [output.answered(batch, n, f"q{n}", 200, "r", empty if n % 2 else b"{}") for n in reversed(numbers)]
        world.db.run(as_holder.flush, claim, 1, records, None)
        world.db.run(as_holder.settle, claim)
    assert (world.find(batch).empty, world.find(batch).empty_lines) == (10, tuple(range(1, 20, 2)))
    world.cancel(batch)
    desk.assemble(batch)
    found = world.find(batch)
    assert (found.completed, found.empty, found.empty_lines) == (20, 10, tuple(range(1, 20, 2)))


def test_many_segments_are_read_page_by_page_and_none_is_missed(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_PAGE", 3)
    monkeypatch.setattr(assemble, "_READS_AT_ONCE", 2)
    world.settings = world.settings.model_copy(update={"slice_lines": 4})
    batch = desk.validate(twelve())
    worker = world.worker()
    claims = [world.claimed(worker) for _ in range(3)]
    for seq in range(1, 5):  # the slices' segments are accepted in turn
        for claim in claims:
            key = blob_key("acme", "segments")
            world.db.run(work.intend, key)
            number = claim.first_line + seq - 1
            records = [output.answered(batch, number, f"q{number}", 200, "r", b"{}")]
            desk.blobs.put(key, work.SliceAnswers(claim, seq, records).framed)
            world.db.run(as_holder.flush, claim, seq, records, key)
    for claim in claims:
        world.db.run(as_holder.settle, claim)
    assert desk.assemble(batch).answered == 12
    assert ids(desk.result(batch, "output")) == [f"q{n}" for n in range(1, 13)]
