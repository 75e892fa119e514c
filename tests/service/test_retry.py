"""Retries: failed lines are asked again, and the merged result has every line once, in the parent's order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from service.desk import Desk, request
from store import as_holder
from store.world import World, records

from penstock.domain.api_errors import Conflict, LeaseLost, NotFound
from penstock.domain.idempotency import Idempotency
from penstock.domain.work.batch import Batch, BatchState
from penstock.domain.work.lane import Lane
from penstock.domain.work.retry import Retry
from penstock.formats import engine_body, output
from penstock.formats import input as lines
from penstock.service.admin import models, sweep
from penstock.service.intake.retry import RetryRequest, retry
from penstock.service.planning import derive, validate
from penstock.service.webhooks import endpoints
from penstock.store.batches import batch_reads, files, retries

FAILED = Retry(failed=True)
CUT = b'{"choices":[{"finish_reason":"length","text":"on and"}]}'
EMPTY = b'{"choices":[{"finish_reason":"length","text":""}]}'


def twelve(count: int = 12) -> bytes:
    return b"\n".join(request(f"q{n}") for n in range(1, count + 1))


def ended(desk: Desk, content: bytes | None = None, **how: Any) -> str:
    """A batch that was validated, answered so and assembled."""
    batch = desk.validate(twelve() if content is None else content)
    desk.answer(batch, **how)
    desk.assemble(batch)
    return batch


def again(world: World, batch: str, repeats: Retry = FAILED, once: Idempotency | None = None, **terms: Any) -> str:
    """A retry of it that waits to be validated."""
    kind = world.find(batch).kind
    return world.db.run(
        retry, "acme", kind, batch, repeats, RetryRequest(**{"api_key": None, **terms}), once, world.settings
    ).id


def validated(desk: Desk, batch: str) -> Batch:
    found, lease = desk.world.claim_batch(batch, "validate")
    validate.validate(desk.world.db, desk.blobs, found, lease, desk.world.settings)
    return desk.world.find(batch)


def repaired(desk: Desk, batch: str, repeats: Retry = FAILED, **how: Any) -> str:
    """A retry of it that has ended."""
    child = again(desk.world, batch, repeats)
    validated(desk, child)
    desk.answer(child, **how)
    desk.assemble(child)
    return child


def asked(desk: Desk, batch: str) -> list[Any]:
    """What the lines of a batch's input are."""
    return [json.loads(line) for line in desk.blobs.read(desk.world.find(batch).input_key or "").splitlines()]


def file(desk: Desk, id: str | None) -> list[Any]:
    """The lines of a file that its tenant can read."""
    if id is None:
        return []
    found = desk.world.db.run(lambda tx: files.get(tx.conn, "acme", id))
    assert found is not None
    return [output.parse(line) for line in desk.blobs.read(found.blob_key).splitlines()]


def merged(desk: Desk, batch: str) -> tuple[list[str], list[str]]:
    """The custom_ids of the merged answers and failures."""
    found = desk.world.find(batch)
    both = file(desk, found.merged_output_file), file(desk, found.merged_error_file)
    assert all(200 <= line["response"]["status_code"] < 300 for line in both[0])
    return tuple([line["custom_id"] for line in one] for one in both)  # type: ignore[return-value]


def test_failed_lines_are_repeated_with_a_change_and_the_merged_result_is_whole_and_in_order(
    desk: Desk, world: World
) -> None:
    parent = ended(desk, failed=frozenset({3, 4, 11}))
    child = again(world, parent, Retry(failed=True, changes={"max_tokens": 512, "seed": 7}))
    assert world.find(child).state is BatchState.VALIDATING
    validated(desk, child)
    assert [(line["custom_id"], line["body"]) for line in asked(desk, child)] == [
        (f"q{n}", {"model": "tiny", "max_tokens": 512, "seed": 7}) for n in (3, 4, 11)
    ]
    desk.answer(child, failed=frozenset({2}))
    desk.assemble(child)
    assert merged(desk, child) == ([f"q{n}" for n in range(1, 13) if n != 4], ["q4"])
    found = world.find(child)
    assert (found.parent, found.root, found.total, found.completed, found.failed) == (parent, parent, 3, 2, 1)
    lines_ = {line["custom_id"]: line["id"] for line in file(desk, found.merged_output_file)}
    own = {line["custom_id"]: line["id"] for line in file(desk, found.output_file)}
    assert {name: lines_[name] for name in own} == own
    look = world.db.run(lambda tx: batch_reads.look(tx.conn, "acme", parent, children=9))
    assert look is not None
    assert look.children == (child,)
    assert world.one("select count(*) from intents") == 0


def test_the_input_that_is_derived_is_a_file_of_its_tenant(desk: Desk, world: World) -> None:
    child = again(world, ended(desk, failed=frozenset({5})))
    found = validated(desk, child)
    listed = world.db.run(lambda tx: files.get(tx.conn, "acme", found.input_file or ""))
    assert listed is not None
    assert (listed.blob_key, listed.purpose, listed.filename) == (found.input_key, "batch", f"{child}_input.jsonl")


def test_what_a_line_says_otherwise_stays_byte_for_byte() -> None:
    line = b'{"custom_id":"a","url":"/v1/x","body":{"model":"m","top_k":1e999,"max_tokens":8,"x": [1,  2]},"y":0.10}'
    changed = lines.changed(line, {"max_tokens": None, "model": "n", "stop": ["!"]})
    wanted = b'{"custom_id":"a","url":"/v1/x","body":{"model":"n","top_k":1e999,"x":[1,  2],"stop":["!"]},"y":0.10}'
    assert changed == wanted


CHAT, COMPLETE, RESPOND = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("url", "body", "changes", "wanted"),
    [
        (CHAT, {"max_completion_tokens": 8}, {"max_tokens": 512}, {"max_completion_tokens": 512}),
        (CHAT, {"max_tokens": 8}, {"max_completion_tokens": 512}, {"max_tokens": 512}),
        (CHAT, {"max_tokens": 8, "max_completion_tokens": 9}, {"max_tokens": 512}, {"max_completion_tokens": 512}),
        (CHAT, {"max_tokens": 8, "max_completion_tokens": None}, {"max_tokens": 512},
         {"max_tokens": 512, "max_completion_tokens": None}),
        (CHAT, {}, {"max_tokens": 512, "seed": 1}, {"max_tokens": 512, "seed": 1}),
        (CHAT, {}, {"max_output_tokens": 512}, {"max_completion_tokens": 512}),
        (CHAT, {"max_completion_tokens": 8}, {"max_tokens": None}, {}),
        (CHAT, {"max_completion_tokens": 9}, {"max_tokens": 5, "max_completion_tokens": None}, {"max_tokens": 5}),
        (RESPOND, {"max_output_tokens": 8}, {"max_tokens": 512}, {"max_output_tokens": 512}),
        (RESPOND, {}, {"max_tokens": 512}, {"max_output_tokens": 512}),
        (COMPLETE, {"max_tokens": 8}, {"max_completion_tokens": 512}, {"max_tokens": 512}),
        ("/v1/embeddings", {}, {"max_tokens": 512}, {"max_tokens": 512}),
    ],
)  # fmt: skip
def test_a_limit_on_tokens_is_set_by_any_of_its_names(
    url: str, body: dict[str, Any], changes: dict[str, Any], wanted: dict[str, Any]
) -> None:
    changed = lines.changed(lines.write("a", url, {"model": "m"} | body), changes)
    assert json.loads(changed)["body"] == {"model": "m"} | wanted


@pytest.mark.parametrize(
    ("url", "body", "most"),
    [
        (CHAT, {"max_completion_tokens": 8, "max_tokens": 9}, 8),
        (CHAT, {"max_completion_tokens": None, "max_tokens": 9}, 9),
        (CHAT, {"max_output_tokens": 9}, None),
        (COMPLETE, {"max_completion_tokens": 8, "max_tokens": 9}, 9),
        (RESPOND, {"max_output_tokens": 7, "max_tokens": 9}, 7),
        (CHAT, {"max_tokens": True}, None),
    ],
)
def test_the_limit_that_counts_is_the_endpoints_own(url: str, body: dict[str, Any], most: int | None) -> None:
    checked = lines.check(lines.write("a", url, {"model": "m", "messages": [], **body}), 1, url, 512)
    assert isinstance(checked, lines.Checked)
    assert checked.max_output_tokens == most
    call = engine_body.for_call(json.dumps({"model": "m", **body}).encode(), url, "acme", False)
    assert call.max_tokens == most


REFUSED = b'{"error":{"message":"no","type":"BadRequestError","code":400}}'
FILTERS = [
    (Retry(failed=True), [2, 3, 5, 12]),
    (Retry(status_codes=frozenset({400})), [2, 3]),
    (Retry(status_codes=frozenset({429, 500})), [5]),
    (Retry(error_codes=frozenset({"BadRequestError"})), [3]),
    (Retry(error_codes=frozenset({"400"})), [3]),
    (Retry(error_codes=frozenset({"batch_cancelled"}), status_codes=frozenset({500})), [5, 12]),
    (Retry(answered="truncated"), [7, 8]),
    (Retry(answered="empty"), [8]),
    (Retry(failed=True, answered="empty"), [2, 3, 5, 8, 12]),
    (Retry(failed=True, custom_ids=frozenset({"q2", "q7", "q12", "other"})), [2, 12]),
    (Retry(failed=True, answered="truncated", custom_ids=frozenset({"q2", "q7", "q9"})), [2, 7]),
]


@pytest.fixture
def mixed(desk: Desk, world: World) -> str:
    """A cancelled batch whose lines ended in every way: 400 in two words, 500, cut, empty, and 12 not at all."""
    batch = desk.validate(twelve())
    worker = world.worker()
    status = {2: 400, 3: 400, 5: 500}
    bodies = {3: REFUSED, 7: CUT, 8: EMPTY}
    while claim := world.claim(worker):
        numbers = [n for n in range(claim.first_line, claim.last_line + 1) if n != 12]
        found = [output.answered(batch, n, f"q{n}", status.get(n, 200), "r", bodies.get(n, b"{}")) for n in numbers]
        world.db.run(as_holder.flush, claim, 1, found, None)
        if claim.last_line == 12:
            world.cancel(batch)
        world.db.run(as_holder.settle, claim)
    desk.assemble(batch)
    return batch


def test_a_filter_chooses_by_how_lines_ended(desk: Desk, world: World, mixed: str, subtests: pytest.Subtests) -> None:
    for repeats, wanted in FILTERS:
        with subtests.test(repeats=repr(repeats)[:80]):
            child = again(world, mixed, repeats)
            validated(desk, child)
            assert [line["custom_id"] for line in asked(desk, child)] == [f"q{n}" for n in wanted]


def test_an_answer_is_never_replaced_by_a_failure(desk: Desk, world: World, mixed: str) -> None:
    child = repaired(desk, mixed, Retry(failed=True, answered="truncated"), failed=frozenset({1, 4}))
    assert asked(desk, child)[3]["custom_id"] == "q7"
    assert merged(desk, child) == ([f"q{n}" for n in range(1, 13) if n != 2], ["q2"])
    seven = file(desk, world.find(child).merged_output_file)[5]
    assert seven["response"]["body"] == json.loads(CUT)


def test_a_retry_of_a_retry_repeats_what_failed_again_and_merges_all_three(desk: Desk, world: World) -> None:
    first = ended(desk, b"\xef\xbb\xbf\n" + twelve().replace(b"\n", b"\r\n\n"), failed=frozenset({2, 6, 8, 24}))
    assert world.find(first).failed == 4
    second = repaired(desk, first, Retry(failed=True, changes={"max_tokens": 99}), failed=frozenset({2, 4}))
    third = again(world, second, Retry(failed=True, changes={"seed": 1}))
    validated(desk, third)
    bodies = [line["body"] for line in asked(desk, third)]
    assert bodies == [{"model": "tiny", "max_tokens": 99, "seed": 1}] * 2
    desk.answer(third, failed=frozenset({2}))
    desk.assemble(third)
    failed = [line["custom_id"] for line in file(desk, world.find(second).error_file)]
    assert merged(desk, third) == ([f"q{n}" for n in range(1, 13) if f"q{n}" != failed[1]], failed[1:])
    assert (world.find(third).parent, world.find(third).root) == (second, first)


def test_a_job_in_rows_is_repeated_and_merged_in_files(desk: Desk, world: World) -> None:
    job = world.job(5)
    claim = world.claimed(world.worker())
    world.db.run(as_holder.flush, claim, 1, [*records(claim, 1, 4), *records(claim, 2, 3, 5, failed=True)], None)
    world.db.run(as_holder.settle, claim)
    child = repaired(desk, job, failed=frozenset({3}))
    assert child.startswith("job_")
    assert (world.find(child).kind, world.find(child).inline) == ("job", False)
    assert merged(desk, child) == (["q-1", "q-2", "q-3", "q-4"], ["q-5"])
    assert merged(desk, repaired(desk, child)) == ([f"q-{n}" for n in range(1, 6)], [])


def test_another_model_and_other_terms_or_the_parents(desk: Desk, world: World) -> None:
    world.db.run(models.add, "other")
    parent = ended(desk, failed=frozenset({1}))
    child = again(
        world, parent, Retry(failed=True, changes={"model": "other"}), lane=Lane.FLEX, completion_window="2h",
        metadata={"a": "b"}, output_expires_seconds=3_600,
    )  # fmt: skip
    found = validated(desk, child)
    assert (found.model, found.lane, found.completion_window, found.metadata) == ("other", "flex", "2h", {"a": "b"})
    assert found.output_expires_seconds == 3_600
    same = world.find(again(world, parent))
    assert (same.lane, same.completion_window, same.metadata) == (Lane.STANDARD, "24h", {})


def test_a_retry_has_a_webhook_of_its_own_if_it_asks_for_one(desk: Desk, world: World) -> None:
    parent = ended(desk, failed=frozenset({1}))
    child = again(world, parent, webhook=endpoints.wish("https://hooks.example/x", None, None, world.settings))
    endpoint = world.db.run(endpoints.of_batch, "acme", child)
    assert endpoint is not None
    assert endpoint.url == "https://hooks.example/x"


def test_a_retry_under_the_same_key_is_one_batch(desk: Desk, world: World) -> None:
    parent, once = ended(desk, failed=frozenset({1})), Idempotency("k", b"f")
    assert again(world, parent, once=once) == again(world, parent, once=once)
    with pytest.raises(Conflict, match="used before"):
        again(world, parent, once=Idempotency("k", b"g"))


def test_what_can_not_be_repeated_is_said_at_once(desk: Desk, world: World) -> None:
    def refused(batch: str, repeats: Retry = FAILED) -> str | None:
        with pytest.raises(Conflict) as told:
            again(world, batch, repeats)
        return told.value.code

    running = desk.validate(twelve())
    assert refused(running) == "conflict"
    world.cancel(running)
    assert refused(desk.validate(b"not json")) == "nothing_to_retry"
    whole = ended(desk)
    assert refused(whole) == refused(whole, Retry(answered="empty")) == "nothing_to_retry"
    with pytest.raises(NotFound):
        world.db.run(retry, "stranger", "batch", whole, FAILED, RetryRequest(api_key=None), None, world.settings)
    with pytest.raises(NotFound):
        world.db.run(retry, "acme", "job", whole, FAILED, RetryRequest(api_key=None), None, world.settings)
    for name in ("input_file", "error_file"):
        parent = ended(desk, failed=frozenset({1}))
        gone = getattr(world.find(parent), name)
        world.db.run(lambda tx, gone=gone: files.delete(tx.conn, "acme", gone))
        assert refused(parent) == "file_gone"


def test_a_filter_that_meets_no_line_fails_the_retry_and_says_so(desk: Desk, world: World) -> None:
    parent = ended(desk, failed=frozenset({1}))
    found = validated(desk, again(world, parent, Retry(status_codes=frozenset({418}))))
    assert (found.state, found.errors[0]["code"]) == (BatchState.FAILED, "nothing_to_retry")
    assert world.events(found.id) == ["batch.failed"]


def reading(world: World, batch: str) -> Iterator[str]:
    found = world.find(batch)
    yield from filter(None, (found.input_file, found.output_file, found.error_file))


def test_files_that_a_retry_reads_stay_until_it_has_ended(desk: Desk, world: World) -> None:
    parent = ended(desk, failed=frozenset({1}))
    child = again(world, parent)
    kept = list(reading(world, parent))
    world.sql("update files set expires_at = now() - interval '1 s' where id = any(:ids)", ids=kept)
    for look in (lambda: None, lambda: validated(desk, child), lambda: desk.answer(child)):
        look()
        assert world.db.run(sweep.expired_files, world.settings) == 0
        for id in kept:
            assert world.db.run(lambda tx, id=id: files.reading_batch(tx.conn, "acme", id)) == child
    desk.assemble(child)
    assert merged(desk, child) == ([f"q{n}" for n in range(1, 13)], [])
    assert world.db.run(sweep.expired_files, world.settings) == 3


def test_a_retry_that_is_cancelled_merges_what_it_has_and_one_without_a_plan_nothing(desk: Desk, world: World) -> None:
    parent = ended(desk, failed=frozenset({1, 2, 3, 4, 5, 6}))
    child = again(world, parent)
    validated(desk, child)
    desk.answer(child, slices=1)
    world.cancel(child)
    desk.assemble(child)
    assert merged(desk, child) == ([f"q{n}" for n in (1, 2, 3, 4, 7, 8, 9, 10, 11, 12)], ["q5", "q6"])
    early = again(world, parent)
    world.cancel(early)
    found = world.find(early)
    assert (found.state, found.merged_output_file, found.merged_error_file) == (BatchState.CANCELLED, None, None)


def test_a_retry_whose_parents_results_are_lost_has_its_own(desk: Desk, world: World) -> None:
    parent = ended(desk, failed=frozenset({1}))
    child = again(world, parent)
    validated(desk, child)
    desk.answer(child)
    key = world.db.run(lambda tx: retries.keys(tx.conn, "acme", [world.find(parent).output_file or ""])).popitem()[1]
    desk.blobs.delete(key)
    desk.assemble(child)
    found = world.find(child)
    assert (found.state, found.merged_output_file, found.completed) == (BatchState.COMPLETED, None, 1)


def test_a_derivation_goes_on_where_one_died_and_a_late_one_changes_nothing(desk: Desk, world: World) -> None:
    child = again(world, ended(desk, failed=frozenset({2, 9})))
    late, lease = world.claim_batch(child, "validate")
    world.reap(child)
    found, present = world.claim_batch(child, "validate")
    assert derive.derive(world.db, desk.blobs, found, present, world.settings) is not None
    with pytest.raises(LeaseLost):
        derive.derive(world.db, desk.blobs, late, lease, world.settings)
    world.reap(child)  # whoever derived it dies before the plan
    key = world.find(child).input_key
    assert validated(desk, child).total == 2
    assert world.find(child).input_key == key
    assert len(asked(desk, child)) == 2


def test_a_retry_of_lines_that_name_no_model_asks_what_its_parent_took(desk: Desk, world: World) -> None:
    parent = ended(desk, b"\n".join(request(f"q{n}", body={"n": 1}) for n in range(3)), failed=frozenset({2}))
    world.db.run(models.add, "other")
    child = again(world, parent)
    assert validated(desk, child).model == "tiny"
    other = again(world, parent, Retry(failed=True, changes={"model": "other"}))
    assert validated(desk, other).model == "other"
