"""Skipped lines: a batch goes on without what validation refuses, and each such line is an error row, once."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from service import broom
from service.desk import Desk, request
from service.test_retry import again, file, validated
from service.test_usage import used
from store.world import World

from penstock.domain.accounts.usage_report import UsageGroup
from penstock.domain.api_errors import Conflict, LeaseLost
from penstock.domain.work.batch import BatchState
from penstock.domain.work.retry import Retry
from penstock.domain.work.terms import OnInvalid
from penstock.formats import output
from penstock.service.admin import models
from penstock.service.control import delete
from penstock.service.planning import skipped, validate
from penstock.settings import Settings

SKIP: Final = OnInvalid.SKIP
MISSING: Final = "missing_required_parameter"


def rows(desk: Desk, batch: str, which: str) -> list[Any]:
    return [output.parse(line) for line in (desk.result(batch, which) or b"").splitlines()]


def told(desk: Desk, batch: str) -> list[tuple[Any, str, int]]:
    """custom_id, code and line of each row of the error file."""
    return [(row["custom_id"], row["error"]["code"], row["error"]["line"]) for row in rows(desk, batch, "error")]


def ended(desk: Desk, content: bytes, **terms: Any) -> str:
    batch = desk.validate(content, on_invalid=SKIP, **terms)
    desk.answer(batch)
    desk.assemble(batch)
    return batch


MIXED: Final = b"\n".join(
    [request("a"), b"not json", request("b", model="nobody-has-it"), b"", request("a"), request("c", method="GET"),
     request("c"), request("x" * 513), request(None), request("d" * 2_100), request("e")]
)  # fmt: skip
TOLD: Final = [
    (None, "invalid_json_line", 2),
    ("b", "model_not_found", 3),
    ("a", "duplicate_custom_id", 5),
    ("c", "invalid_request", 6),
    (None, "invalid_request", 8),
    (None, MISSING, 9),
    (None, "invalid_request", 10),
]


def test_the_good_lines_are_answered_and_each_bad_one_says_why_in_input_order(desk: Desk, world: World) -> None:
    batch = desk.validate(MIXED, on_invalid=SKIP)
    found = world.find(batch)
    assert (found.state, found.total, found.completed, found.failed) == (BatchState.IN_PROGRESS, 10, 0, 7)
    assert (found.errors, found.model) == ((), "tiny")
    assert world.states(batch) == ["queued", "done"]
    desk.answer(batch)
    desk.assemble(batch)
    assert [row["custom_id"] for row in rows(desk, batch, "output")] == ["a", "c", "e"]
    assert told(desk, batch) == TOLD
    assert rows(desk, batch, "error")[2]["error"] == {
        "code": "duplicate_custom_id",
        "message": "custom_id 'a' is on line 1 and on line 5.",
        "param": "custom_id",
        "line": 5,
    }
    found = world.find(batch)
    assert (found.state, found.total, found.completed, found.failed) == (BatchState.COMPLETED, 10, 3, 7)
    assert world.events(batch) == ["batch.completed"]
    assert world.one("select count(*) from intents") == 0


LINES: Final = st.sampled_from(["good", "json", "blank", "model", "url", "no id", "again", "again too", "secret"])


def written(kinds: list[str]) -> tuple[bytes, list[str], list[tuple[Any, str, int]]]:
    """A file of such lines, the custom_ids that are to be answered, and what is to be told of the others."""
    content, good, bad = [], [], []
    for number, kind in enumerate(kinds, 1):
        own = f"q{number}"
        if kind == "json":
            content.append(b'{"custom_id": "cut')
            bad.append((None, "invalid_json_line", number))
        elif kind == "blank":
            content.append(b"  ")
        elif kind in ("model", "secret"):
            content.append(request(own, model="nobody-has-it" if kind == "model" else "secret"))
            bad.append((own, "model_not_found" if kind == "model" else "model_not_allowed", number))
        elif kind == "url":
            content.append(request(own, url="/v1/embeddings"))
            bad.append((own, "url_mismatch", number))
        elif kind == "no id":
            content.append(request(None))
            bad.append((None, MISSING, number))
        else:
            name = own if kind == "good" else "again"
            content.append(request(name, model="other" if kind == "again too" else "tiny"))
            if name in good:
                bad.append((name, "duplicate_custom_id", number))
            else:
                good.append(name)
    return b"\n".join(content), good, bad


@given(kinds=st.lists(LINES, min_size=1, max_size=25), segment_bytes=st.sampled_from([1, 400, 4 << 20]))
@examples(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_gives_the_answers_of_the_good_lines_and_one_row_for_each_other(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch, kinds: list[str], segment_bytes: int
) -> None:
    monkeypatch.setattr(skipped, "_SEGMENT_BYTES", segment_bytes)
    for name in ("other", "secret"):
        world.db.run(models.add, name)
    content, good, bad = written(kinds)
    allowed = frozenset({"tiny", "other", "nobody-has-it"})
    batch = desk.validate(content, on_invalid=SKIP, allowed_models=allowed)
    if not good and not bad:
        assert [error["code"] for error in world.find(batch).errors] == ["empty_file"]
        return
    world.check()
    for model in ("tiny", "other"):
        desk.answer(batch, model)
    desk.assemble(batch)
    assert [row["custom_id"] for row in rows(desk, batch, "output")] == good
    assert told(desk, batch) == bad
    found = world.find(batch)
    assert (found.state, found.total, found.completed) == (BatchState.COMPLETED, len(good) + len(bad), len(good))
    assert found.failed == len(bad)
    ids = [row["id"] for which in ("output", "error") for row in rows(desk, batch, which)]
    assert len(set(ids)) == len(ids) == found.total


def test_a_batch_whose_lines_are_all_skipped_is_completed_with_an_error_file(desk: Desk, world: World) -> None:
    batch = desk.validate(b"not json\n" * 3, on_invalid=SKIP)
    found = world.find(batch)
    assert (found.state, found.total, found.failed, found.model) == (BatchState.FINALIZING, 3, 3, None)
    desk.assemble(batch)
    found = world.find(batch)
    assert (found.state, found.completed, found.failed, found.output_file) == (BatchState.COMPLETED, 0, 3, None)
    assert told(desk, batch) == [(None, "invalid_json_line", number) for number in (1, 2, 3)]


def test_what_is_wrong_with_the_file_fails_it_and_leaves_no_blob_of_its_lines(
    desk: Desk, world: World, settings: Settings
) -> None:
    most = settings.max_file_lines
    for content, code in (
        (b"", "empty_file"),
        (b"not json\n" * (most + 1), "too_many_tasks"),
        (b"not json\n" + request("a", body={"model": "tiny", "max_tokens": 60_000}), "token_limit_exceeded"),
        (request("a").decode().encode("utf-16"), "invalid_encoding"),
    ):
        found = world.find(desk.validate(content, on_invalid=SKIP))
        assert (found.state, found.total) == (BatchState.FAILED, 0)
        assert [error["code"] for error in found.errors] == [code]
    assert world.one("select count(*) from intents where doomed_at is null") == 0
    assert world.one("select count(*) from slices") == 0


def test_lines_of_models_beyond_the_most_are_skipped_and_unknown_ones_count_for_none(desk: Desk, world: World) -> None:
    for n in range(4):
        world.db.run(models.add, f"m{n}")
    names = ["no", "nor", "m0", "neither", "m1", "m2", "m3", "m0"]
    batch = desk.validate(b"\n".join(request(str(n), model=name) for n, name in enumerate(names)), on_invalid=SKIP)
    assert {row.model for row in world.slices(batch)} == {"m0", "m1", "m2", None}
    assert world.find(batch).failed == 4


def test_of_many_equal_custom_ids_the_first_good_one_runs(desk: Desk, world: World) -> None:
    content = b"\n".join([request("a", method="GET"), *[request("a")] * 30, request("b")])
    batch = ended(desk, content)
    assert [row["custom_id"] for row in rows(desk, batch, "output")] == ["a", "b"]
    assert told(desk, batch) == [("a", "invalid_request", 1)] + [
        ("a", "duplicate_custom_id", number) for number in range(3, 32)
    ]


def test_skipped_lines_are_no_open_work_and_no_usage_and_are_swept_and_deleted_as_all_others(
    desk: Desk, world: World, settings: Settings
) -> None:
    batch = desk.validate(MIXED, on_invalid=SKIP)
    assert world.one("select sum(lines) from slices where state in ('queued', 'ready', 'running')") == 3
    desk.answer(batch)
    desk.assemble(batch)
    before = used(world, by={UsageGroup.MODEL})
    assert [(one.model, one.requests) for one in before] == [("tiny", 3)]
    broom.once(desk)
    assert world.rows("select 1 from segments") == []
    assert used(world, by={UsageGroup.MODEL}) == before
    world.db.run(delete.delete, "acme", "batch", batch)
    broom.once(desk)
    assert len(broom.blobs(settings)) == 2, "the input is its tenant's, with its index"
    assert used(world, by={UsageGroup.MODEL}) == before


@pytest.mark.parametrize(("close", "code"), [("cancel", "batch_cancelled"), ("expire", "batch_expired")])
def test_a_batch_that_is_closed_tells_skipped_lines_and_those_that_were_not_answered_apart(
    desk: Desk, world: World, close: str, code: str
) -> None:
    batch = desk.validate(MIXED, on_invalid=SKIP)
    getattr(world, close)(batch)
    desk.assemble(batch)
    codes = {row["custom_id"]: row["error"]["code"] for row in rows(desk, batch, "error")}
    assert codes["e"] == code
    assert codes["b"] == "model_not_found"
    found = world.find(batch)
    assert (found.total, found.completed, found.failed) == (10, 0, 10)


def test_a_validation_that_lost_its_batch_leaves_no_half_and_the_next_one_does_it_all(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(skipped, "_SEGMENT_BYTES", 1)
    batch = desk.batch(MIXED, on_invalid=SKIP)
    found, lease = world.claim_batch(batch, "validate")
    world.reap(batch)
    with pytest.raises(LeaseLost):
        validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert world.find(batch).total == 0
    assert world.one("select count(*) from slices") == world.one("select count(*) from segments") == 0
    validated(desk, batch)
    desk.answer(batch)
    desk.assemble(batch)
    assert told(desk, batch) == TOLD


def test_a_blob_that_was_given_up_meanwhile_publishes_nothing(
    desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.batch(MIXED, on_invalid=SKIP)
    found, lease = world.claim_batch(batch, "validate")
    begin = validate.begin

    def late(*given: Any) -> None:
        world.sql("update intents set doomed_at = clock_timestamp() where blob_key like '%/segments/%'")
        begin(*given)

    monkeypatch.setattr(validate, "begin", late)
    with pytest.raises(LeaseLost):
        validate.validate(world.db, desk.blobs, found, lease, world.settings)
    assert (world.find(batch).state, world.one("select count(*) from slices")) == (BatchState.VALIDATING, 0)


def test_a_retry_leaves_skipped_lines_out_and_its_merged_error_file_keeps_them(desk: Desk, world: World) -> None:
    content = b"\n".join([request("a", method="GET"), b"not json", request("a"), request("b"), request("a")])
    batch = desk.validate(content, on_invalid=SKIP)
    desk.answer(batch, failed=frozenset({3, 4}))
    desk.assemble(batch)
    child = again(world, batch)
    assert validated(desk, child).on_invalid is OnInvalid.FAIL
    desk.answer(child, failed=frozenset({2}))
    desk.assemble(child)
    merged = world.find(child)
    assert [line["custom_id"] for line in file(desk, merged.merged_output_file)] == ["a"]
    left = [(line["custom_id"], (line["error"] or {}).get("line")) for line in file(desk, merged.merged_error_file)]
    assert left == [("a", 1), (None, 2), ("b", None), ("a", 5)]
    grandchild = again(world, child)
    validated(desk, grandchild)
    desk.answer(grandchild)
    desk.assemble(grandchild)
    merged = world.find(grandchild)
    assert [line["custom_id"] for line in file(desk, merged.merged_output_file)] == ["a", "b"]
    assert [line["error"]["line"] for line in file(desk, merged.merged_error_file)] == [1, 2, 5]


def test_a_retry_of_nothing_but_skipped_lines_has_nothing_to_repeat(desk: Desk, world: World) -> None:
    batch = ended(desk, MIXED)
    with pytest.raises(Conflict, match=r"of which [0-9]+ were skipped: they are in no retry") as refused:
        again(world, batch, Retry(failed=True))
    assert refused.value.code == "nothing_to_retry"
