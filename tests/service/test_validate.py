"""Validation: every bad line is named at once, and a good file becomes a plan whose slices cover it exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from service.desk import Desk, request
from store.world import CHAT, World

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.batch import BatchState, LineError
from penstock.formats import input as lines
from penstock.formats import plan
from penstock.service.admin import models
from penstock.service.planning import validate
from penstock.settings import Settings

MISSING, INVALID = "missing_required_parameter", "invalid_request"

# Each bad line, and the code and param that it gets.
BAD = [
    (b"not json", "invalid_json_line", None),
    (b'["an", "array"]', "invalid_json_line", None),
    (b'"a string"', "invalid_json_line", None),
    (b"null", "invalid_json_line", None),
    (b'{"custom_id": "cut', "invalid_json_line", None),
    (request("nan").replace(b"16", b"NaN"), "invalid_json_line", None),
    (request("bad-utf-8").replace(b"utf", b"\xff\xfe"), "invalid_json_line", None),
    (b"\x00", "invalid_json_line", None),
    (b"[" * 1_900, "invalid_json_line", None),
    (request(None), MISSING, "custom_id"),
    (request(""), MISSING, "custom_id"),
    (request(7), INVALID, "custom_id"),
    (request("x" * 513), INVALID, "custom_id"),
    (request("a", method=None), MISSING, "method"),
    (request("b", method="GET"), INVALID, "method"),
    (request("c", url=None), MISSING, "url"),
    (request("d", url="/v1/embeddings"), "url_mismatch", "url"),
    (request("e", body=None), MISSING, "body"),
    (request("f", body=[1]), INVALID, "body"),
    (request("g", body={}), MISSING, "body.model"),
    (request("h", model=7), INVALID, "body.model"),
    (request("i", model="m" * 201), INVALID, "body.model"),
    (request("j", model="no\0pe"), INVALID, "body.model"),
    (request("k", body={"model": "tiny", "stream": True}), INVALID, "body.stream"),
    (request("l", model="nobody-has-it"), "model_not_found", "body.model"),
    (request("m" * 2_100), INVALID, None),
]


def test_every_bad_line_is_reported_at_once_with_its_code_param_and_line(desk: Desk, world: World) -> None:
    world.db.run(models.add, "other")  # so that a line without a model could ask either
    content = b"\n".join([*(line for line, _, _ in BAD), request("good"), b"", request("good")])
    wanted: list[tuple[str, str | None, int | None]] = [("invalid_encoding", None, None)]  # first what the file is
    wanted += [(code, param, number) for number, (_, code, param) in enumerate(BAD, 1)]
    wanted.append(("duplicate_custom_id", "custom_id", len(BAD) + 3))
    assert desk.errors(content) == wanted


def test_a_failed_validation_leaves_no_plan_and_one_event(desk: Desk, world: World) -> None:
    batch = desk.validate(b"not json\n")
    found = world.find(batch)
    assert (found.state, found.error_count, found.plan_key, found.total) == (BatchState.FAILED, 1, None, 0)
    assert found.errors[0]["message"] == "This line is not parseable as valid JSON."
    assert world.events(batch) == ["batch.failed"]
    assert world.slices(batch) == []
    assert world.one("select count(*) from intents") == 0


def test_duplicates_name_both_lines(desk: Desk, world: World) -> None:
    content = b"\n".join(map(request, ["a", "b", "a", "", "b", "a"]))
    found = world.find(desk.validate(content))
    doubled = [error for error in found.errors if error["code"] == "duplicate_custom_id"]
    assert [error["line"] for error in doubled] == [3, 5, 6]
    assert [error["message"] for error in doubled] == [
        "custom_id 'a' is on line 1 and on line 3.",
        "custom_id 'b' is on line 2 and on line 5.",
        "custom_id 'a' is on line 1 and on line 6.",
    ]


def test_custom_ids_that_are_written_differently_are_equal(desk: Desk) -> None:
    assert desk.errors(request("é") + b"\n" + request("E").replace(b"E", b"\\u00e9")) == [
        ("duplicate_custom_id", "custom_id", 2)
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\r\n  \r\n\t\n", b"\n" * 30])
def test_a_file_without_requests_is_empty(desk: Desk, content: bytes) -> None:
    assert desk.errors(content) == [("empty_file", None, None)]


def test_all_errors_are_counted_and_the_first_are_listed(desk: Desk, world: World, settings: Settings) -> None:
    found = world.find(desk.validate(b"x\n" * 35))
    assert (found.error_count, len(found.errors)) == (35, settings.max_errors_listed)
    assert [error["line"] for error in found.errors] == list(range(1, 31))


def test_more_lines_than_the_limit_are_too_many(desk: Desk, settings: Settings) -> None:
    most = settings.max_file_lines
    assert desk.errors(b"\n".join(request(str(n)) for n in range(most + 1))) == [("too_many_tasks", None, None)]


def test_exactly_as_many_lines_as_the_limit_are_fine(desk: Desk, world: World, settings: Settings) -> None:
    most = settings.max_file_lines
    assert world.find(desk.validate(b"\n".join(request(str(n)) for n in range(most)))).total == most


def test_a_line_may_be_as_long_as_the_limit_and_no_longer(desk: Desk, world: World, settings: Settings) -> None:
    def long(size: int) -> bytes:
        line = request("a", pad="")
        return line.replace(b'"pad":""', b'"pad":"%b"' % (b"x" * (size - len(line))))

    most = settings.max_line_bytes
    assert world.find(desk.validate(long(most) + b"\n" + request("b"))).total == 2
    assert world.find(desk.validate(long(most))).total == 1
    assert desk.errors(long(most + 1) + b"\n" + request("b")) == [(INVALID, None, 1)]
    assert desk.errors(request("b") + b"\n" + long(most + 3_000_000)) == [(INVALID, None, 2)]


def test_more_models_than_the_limit_are_refused(desk: Desk, world: World) -> None:
    for n in range(5):
        world.db.run(models.add, f"m{n}")
    content = b"\n".join(
        request(str(n), model=name) for n, name in enumerate(["m0", "no", "m1", "m2", "m3", "m0", "m4"])
    )
    assert desk.errors(content) == [("model_not_found", "body.model", 2)] + [(INVALID, "body.model", n) for n in (5, 7)]


def test_a_tenants_open_tokens_are_limited(desk: Desk, world: World) -> None:
    body = {"model": "tiny", "max_tokens": 30_000}
    assert world.find(desk.validate(request("a", body=body))).state is BatchState.IN_PROGRESS
    assert desk.errors(request("a", body=body)) == [("token_limit_exceeded", None, None)]


def test_a_bom_crlf_blank_lines_and_a_missing_last_newline_are_tolerated(desk: Desk, world: World) -> None:
    lines = [request("a"), request("b"), request("c")]
    content = b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n  \n" + lines[1] + b"\t \r\n" + lines[2]
    batch = desk.validate(content)
    assert list(plan.unframe(desk.plan(batch))) == [(1, lines[0]), (4, lines[1]), (5, lines[2])]
    found = world.find(batch)
    assert (found.state, found.total, found.model) == (BatchState.IN_PROGRESS, 3, "tiny")


def test_a_nul_in_a_prompt_is_kept_as_it_is(desk: Desk) -> None:
    line = request("a", body={"model": "tiny", "prompt": "a\0b\ud7ff\u2028"})
    assert desk.plan(desk.validate(line)) == plan.frame(1, line)


def test_several_models_are_planned_in_file_order_model_by_model(desk: Desk, world: World) -> None:
    world.db.run(models.add, "other")
    lines = {n: request(str(n), model="tiny" if n % 2 else "other") for n in range(1, 12)}
    batch = desk.validate(b"\n".join(lines.values()) + b"\n")
    order = [1, 3, 5, 7, 9, 11, 2, 4, 6, 8, 10]
    assert desk.plan(batch) == b"".join(plan.frame(n, lines[n]) for n in order)
    rows = world.slices(batch)
    assert [(row.model, row.lines, row.first_line, row.last_line) for row in rows] == [
        ("tiny", 4, 1, 7),
        ("tiny", 2, 9, 11),
        ("other", 4, 2, 8),
        ("other", 1, 10, 10),
    ]
    assert world.find(batch).model is None


def test_the_slices_cover_the_plan_exactly(desk: Desk, world: World, settings: Settings) -> None:
    sizes = [16, 900, 900, 900, 16, 5_000, 16, 16, 16, 16, 16, 16]
    lines = [request(f"q{n}", body={"model": "tiny", "max_tokens": size}) for n, size in enumerate(sizes)]
    batch = desk.validate(b"\n".join(lines))
    copy, rows, offset = desk.plan(batch), world.slices(batch), 0
    for row in rows:
        assert row.plan_offset == offset
        part = list(plan.unframe(copy[offset : offset + row.plan_bytes]))
        numbers = [number for number, _ in part]
        assert (len(part), min(numbers), max(numbers)) == (row.lines, row.first_line, row.last_line)
        assert row.lines <= settings.slice_lines
        assert row.tokens <= settings.slice_tokens or row.lines == 1
        offset += row.plan_bytes
    assert offset == len(copy)
    assert sum(row.lines for row in rows) == len(lines) == world.find(batch).total
    assert sorted(plan.unframe(copy)) == list(enumerate(lines, 1))


def test_a_batch_that_was_cancelled_meanwhile_gets_neither_plan_nor_errors(desk: Desk, world: World) -> None:
    for content in (request("a"), b"not json"):
        batch = desk.batch(content)
        found, lease = world.claim_batch(batch, "validate")
        world.cancel(batch)
        with pytest.raises(LeaseLost):
            validate.validate(world.db, desk.blobs, found, lease, world.settings)
        ended = world.find(batch)
        assert (ended.state, ended.total, ended.errors) == (BatchState.CANCELLED, 0, ())


def test_a_validation_leaves_nothing_on_scratch(desk: Desk, settings: Settings) -> None:
    desk.validate(request("a"))
    desk.validate(b"not json")
    assert list(settings.scratch_dir.iterdir()) == []


def test_a_published_plan_leaves_no_intent_and_a_refused_one_leaves_its_own(desk: Desk, world: World) -> None:
    desk.validate(request("a"))
    assert world.one("select count(*) from intents") == 0
    batch = desk.batch(request("a"))
    found, lease = world.claim_batch(batch, "validate")
    world.cancel(batch)
    with pytest.raises(LeaseLost):
        validate.validate(world.db, desk.blobs, found, lease, world.settings)
    left = [row.blob_key for row in world.rows("select blob_key from intents order by blob_key")]  # for the sweep
    assert [key.split("/")[1] for key in left] == ["indexes", "plans"]
    assert all(desk.blobs.read(key) for key in left)


def test_the_url_must_be_the_batchs_endpoint_and_its_message_says_which(desk: Desk, world: World) -> None:
    found = world.find(desk.validate(request("a", url="/v1/completions")))
    assert CHAT in found.errors[0]["message"]


@pytest.mark.parametrize(("endpoint", "names"), [("/v1/score", ["/score"]), ("/v1/rerank", ["/rerank", "/v2/rerank"])])
def test_a_line_may_name_its_url_as_vllms_run_batch_takes_it(endpoint: str, names: list[str]) -> None:
    body = {"model": "tiny", "query": "a", "documents": ["b"]}
    for number, url in enumerate([endpoint, *names], 1):
        line = request(str(number), url=url, body=body)
        assert isinstance(lines.check(line, number, endpoint, 512), lines.Checked)
        assert lines.read(number, line).url == endpoint, "which is what the engine is asked"
        other = lines.check(line, number, "/v1/embeddings", 512)
        assert isinstance(other, LineError)
        assert other.code == "url_mismatch"
    odd = lines.check(request("a", url=["/score"]), 1, "/v1/score", 512)
    assert isinstance(odd, LineError)


def test_a_plan_keeps_prompts_that_begin_alike_and_equal_lines_together(desk: Desk) -> None:
    heads = ["You classify what people say about water. " * 10, "You translate what people say about wheels. " * 10]

    def line(number: int, head: int, **more: object) -> bytes:
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"{heads[head]} {number // 4}"}]}
        return request(str(number), body=body | {"max_tokens": 16, "temperature": 0} | more)

    batch = desk.validate(b"\n".join([line(n, n % 2) for n in range(8)] + [line(8, 1, max_tokens=1_000)]))
    numbers = [number for number, _ in plan.unframe(desk.plan(batch))]
    # By far the longest answer first, and with it all of its prompt. 2 and 4, 6 and 8, 1 and 3, 5 and 7 are equal.
    assert numbers == [9, 2, 4, 6, 8, 1, 3, 5, 7]


def test_lines_that_only_follow_an_equal_one_are_estimated_at_next_to_nothing(desk: Desk, world: World) -> None:
    body = {"model": "tiny", "max_tokens": 100, "prompt": "water " * 20, "temperature": 0}
    alone = world.slices(desk.validate(request("a", body=body)))
    (row,) = world.slices(desk.validate(b"\n".join(request(name, body=body) for name in "abcd")))
    assert row.tokens == alone[0].tokens + 3
    drawn = [request(name, body=body | {"temperature": 1}) for name in "abcd"]
    assert sum(row.tokens for row in world.slices(desk.validate(b"\n".join(drawn)))) >= 4 * 100


def test_slices_are_as_long_as_live_workers_are_fast(desk: Desk, world: World, settings: Settings) -> None:
    lines = b"\n".join(request(str(n), body={"model": "tiny", "max_tokens": 900}) for n in range(8))
    assert [row.lines for row in world.slices(desk.validate(lines))] == [2, 2, 2, 2]
    world.worker()
    world.sql("update workers set tokens_per_second = 150 where kind = 'gpu'")
    assert settings.slice_seconds * 150 >= 900 * 3
    assert [row.lines for row in world.slices(desk.validate(lines))] == [3, 3, 2]


def test_a_batchs_slices_are_handed_out_in_the_order_of_the_plan(desk: Desk, world: World) -> None:
    batch = desk.validate(b"\n".join(request(str(n), body={"model": "tiny", "max_tokens": n + 1}) for n in range(12)))
    rows = world.slices(batch)
    assert [row.plan_offset for row in sorted(rows, key=lambda row: row.id)] == sorted(row.plan_offset for row in rows)
    assert [number for number, _ in plan.unframe(desk.plan(batch))] == list(range(12, 0, -1))
    holder = world.worker()
    claimed = [world.claim(holder) for _ in rows]
    assert [claim.plan_offset for claim in claimed if claim] == sorted(row.plan_offset for row in rows)


def test_a_batch_that_wants_no_plan_keeps_file_order_and_counts_every_line(desk: Desk, world: World) -> None:
    body = {"model": "tiny", "prompt": "water " * 60, "temperature": 0}
    lines = [request(str(n), body=body | {"max_tokens": most}) for n, most in enumerate([16, 900, 16, 64, 900], 1)]
    batch = desk.validate(b"\n".join(lines), plan=False)
    assert list(plan.unframe(desk.plan(batch))) == list(enumerate(lines, 1))
    assert sum(row.tokens for row in world.slices(batch)) >= 16 + 900 + 16 + 64 + 900
    numbers = [number for number, _ in plan.unframe(desk.plan(desk.validate(b"\n".join(lines))))]
    assert numbers == [2, 5, 4, 1, 3]


def test_a_batch_without_dedup_counts_every_line_in_full(desk: Desk, world: World) -> None:
    line = {"model": "tiny", "prompt": "water", "temperature": 0, "max_tokens": 300}
    lines = b"\n".join(request(name, body=line) for name in "ab")
    shared, apart = (desk.validate(lines, dedup=dedup) for dedup in (True, False))
    assert sum(row.tokens for row in world.slices(shared)) < 600 < sum(row.tokens for row in world.slices(apart))


def test_lines_name_only_models_that_their_makers_key_may_ask(desk: Desk, world: World) -> None:
    world.db.run(models.add, "secret")
    content = b"\n".join([request("a"), request("b", model="secret"), request("c", model="nobody-has-it")])
    found = world.find(desk.validate(content, allowed_models=frozenset({"tiny", "later"})))
    assert [(error["code"], error["line"]) for error in found.errors] == [
        ("model_not_allowed", 2),
        ("model_not_allowed", 3),
    ]
    assert found.errors[0]["message"] == "This key may not use the model 'secret'."
    good = desk.validate(request("a"), allowed_models=frozenset({"tiny"}))
    assert world.find(good).state is BatchState.IN_PROGRESS


def body_of(desk: Desk, batch: str) -> list[tuple[int, Any]]:
    """What the engine is asked: the bodies of the plan, by line."""
    read = sorted(plan.unframe(desk.plan(batch)))
    return [(number, json.loads(lines.read(number, line).body)) for number, line in read]


UNNAMED = [{"max_tokens": 8}, {"model": None, "n": 1}, {"model": "", "n": 2}]


def test_lines_that_name_no_model_ask_what_the_create_says(desk: Desk, world: World) -> None:
    world.db.run(models.add, "other")
    content = b"\n".join(request(str(n), body=body) for n, body in enumerate([*UNNAMED, {"model": "tiny"}]))
    batch = desk.validate(content, default_model="other")
    wanted = [body | {"model": "other"} for body in UNNAMED] + [{"model": "tiny"}]
    assert body_of(desk, batch) == list(enumerate(wanted, 1))
    assert {row.model for row in world.slices(batch)} == {"other", "tiny"}
    assert [error[:2] for error in desk.errors(content)] == [(MISSING, "body.model")] * 3
    assert desk.errors(content, default_model="none")[0] == ("model_not_found", "body.model", 1)


def test_without_it_they_ask_the_only_model_that_their_makers_key_may(desk: Desk, world: World) -> None:
    content = b"\n".join(request(str(n), body=body) for n, body in enumerate(UNNAMED))
    batch = desk.validate(content)
    assert [body["model"] for _, body in body_of(desk, batch)] == ["tiny"] * 3
    assert world.find(batch).model == world.find(batch).default_model == "tiny"
    world.db.run(models.add, "other")
    assert world.find(desk.validate(content)).state is BatchState.FAILED
    narrow = desk.validate(content, allowed_models=frozenset({"other", "later"}))
    assert world.find(narrow).model == "other"


def test_a_line_that_names_its_model_equals_one_that_gets_the_same(desk: Desk, world: World) -> None:
    body = {"prompt": "water", "temperature": 0, "max_tokens": 300}
    (row,) = world.slices(desk.validate(request("a", body={"model": "tiny"} | body) + b"\n" + request("b", body=body)))
    assert row.tokens < 600
