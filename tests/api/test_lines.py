"""`GET /v1/batches/{id}/lines` and `/errors`: each line once, in input order, while the batch runs and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from api.live import error, http
from service.desk import Desk, request
from store.world import World

from penstock.formats import output
from penstock.service.admin import keys
from penstock.settings import Settings

REFUSED = b'{"error":{"message":"too long","type":"BadRequestError","code":400}}'
OTHER = b'{"error":{"message":"no such tool","type":"BadRequestError","code":"tool_not_found"}}'
ANSWER = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5}}'
# Line 2 is empty: the numbers are those of the file.
NINE = b"\n".join([request("q1"), b"", *[request(f"q{n}") for n in range(3, 11)]])
FAILED = frozenset({3, 4, 8})


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    """Hands that do what workers would, in the API's own database."""
    world = World(settings.database_url, settings.model_copy(update={"slice_lines": 3}))
    yield Desk(world)
    world.check()
    world.close()


@pytest.fixture
def acme(url: str, desk: Desk) -> Iterator[httpx.Client]:
    """A client of the tenant whose batches the desk makes."""
    with http(url, desk.world.db.run(keys.create, "acme", "test")[1]) as one:
        yield one


def lines(client: httpx.Client, batch: str, **asked: Any) -> list[tuple[int, str, str, str | None]]:
    """Number, custom_id, state and code of a page's lines."""
    answer = client.get(f"/v1/batches/{batch}/lines", params=asked)
    assert answer.status_code == 200, answer.text
    return [(one["line"], one["custom_id"], one["state"], one["code"]) for one in answer.json()["data"]]


def paged(client: httpx.Client, batch: str, **asked: Any) -> list[tuple[int, str, str, str | None]]:
    """The same by pages of two."""
    found, after = [], "0"
    while True:
        page = client.get(f"/v1/batches/{batch}/lines", params={**asked, "after": after, "limit": 2}).json()
        found += [(one["line"], one["custom_id"], one["state"], one["code"]) for one in page["data"]]
        if not page["has_more"]:
            return found
        after = page["next_after"]


def groups(client: httpx.Client, batch: str) -> list[tuple[int | None, str, int, int, str]]:
    """What `/errors` says."""
    answer = client.get(f"/v1/batches/{batch}/errors")
    assert answer.status_code == 200, answer.text
    return [
        (one["status_code"], one["code"], one["count"], one["first_line"], one["message"])
        for one in answer.json()["data"]
    ]


def answered(desk: Desk, batch: str, slices: int = 99) -> None:
    """Lines 3 and 8 are refused in one way, 4 in another."""
    bodies: Mapping[int, bytes] = dict.fromkeys(range(1, 11), ANSWER) | {3: REFUSED, 8: REFUSED, 4: OTHER}
    desk.answer(batch, failed=FAILED, bodies=bodies, slices=slices)


def test_lines_of_a_running_batch_are_answered_failed_or_open(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.batch(NINE)
    assert (lines(acme, batch), groups(acme, batch)) == ([], [])
    desk.validate_it(batch)
    assert {state for _, _, state, _ in lines(acme, batch)} == {"open"}
    answered(desk, batch, slices=2)
    seen = [
        (1, "q1", "answered", None),
        (3, "q3", "failed", "BadRequestError"),
        (4, "q4", "failed", "tool_not_found"),
        (5, "q5", "answered", None),
        (6, "q6", "answered", None),
        (7, "q7", "answered", None),
        *[(n, f"q{n}", "open", None) for n in (8, 9, 10)],
    ]
    assert lines(acme, batch) == seen == paged(acme, batch)
    for state in ("answered", "failed", "open"):
        assert paged(acme, batch, state=state) == [one for one in seen if one[2] == state]
    assert lines(acme, batch, code="tool_not_found") == seen[2:3]
    assert lines(acme, batch, custom_id="q9") == seen[7:8]
    assert groups(acme, batch) == [
        (400, "BadRequestError", 1, 3, "too long"),
        (400, "tool_not_found", 1, 4, "no such tool"),
    ]


def test_lines_of_an_ended_batch_come_from_its_files(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(NINE)
    answered(desk, batch, slices=2)
    desk.world.cancel(batch)
    desk.assemble(batch)
    assert desk.world.one("select count(*) from slice_errors") == 0, "the batch has them all now"
    failed = [
        (3, "q3", "failed", "BadRequestError"),
        (4, "q4", "failed", "tool_not_found"),
        *[(n, f"q{n}", "failed", "batch_cancelled") for n in (8, 9, 10)],
    ]
    good = [(n, f"q{n}", "answered", None) for n in (1, 5, 6, 7)]
    assert lines(acme, batch) == sorted(failed + good) == paged(acme, batch)
    assert paged(acme, batch, state="failed") == failed
    assert paged(acme, batch, state="answered") == good
    assert paged(acme, batch, state="open") == []
    assert paged(acme, batch, code="batch_cancelled") == failed[2:]
    assert lines(acme, batch, status_code=400) == failed[:2]
    assert lines(acme, batch, custom_id="q6") == [good[2]]
    assert lines(acme, batch, custom_id="q6", state="failed") == lines(acme, batch, custom_id="q66") == []
    assert groups(acme, batch)[:2] == [
        (None, "batch_cancelled", 3, 8, "This line was not answered before the batch was cancelled."),
        (400, "BadRequestError", 1, 3, "too long"),
    ]
    child = acme.post(f"/v1/batches/{batch}/retry", json={"lines": {"groups": ["400:BadRequestError"]}}).json()["id"]
    desk.validate_it(child)
    assert [custom_id for _, custom_id, *_ in lines(acme, child)] == ["q3"], "the group, and no other refusal"
    assert acme.get(f"/v1/batches/{child}/lines").json()["parent_batch_id"] == batch
    told = acme.get(f"/v1/batches/{batch}/errors").json()
    assert (told["failed"], told["counted"], told["parent_batch_id"]) == (5, 5, None)


def test_a_line_shows_its_request_beside_its_response_and_long_ones_are_cut(acme: httpx.Client, desk: Desk) -> None:
    long = b'{"choices":[{"finish_reason":"length"}],"x":"%b"}' % (b"x" * 20_000)
    batch = desk.validate(NINE)
    desk.answer(batch, failed=frozenset({3}), bodies={1: ANSWER, 3: REFUSED, 5: long})
    desk.assemble(batch)
    page = acme.get(f"/v1/batches/{batch}/lines", params={"include": "request,response", "limit": 4}).json()
    first, refused, _, cut = page["data"]
    assert (first["usage"]["input_tokens"], first["usage"]["output_tokens"], first["finish_reason"]) == (3, 5, "stop")
    assert first["request"] == {"text": request("q1").decode(), "cut": False}
    assert (refused["request"]["text"], refused["response"]["text"]) == (request("q3").decode(), REFUSED.decode())
    assert (len(cut["response"]["text"]), cut["response"]["cut"], cut["finish_reason"]) == (16_384, True, "length")
    assert acme.get(f"/v1/batches/{batch}/lines").json()["data"][0]["request"] is None


def test_skipped_lines_are_failed_lines_and_found_by_their_custom_id(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(b"\n".join([request("a"), request("b", method="GET"), request("a")]), on_invalid="skip")
    desk.answer(batch)
    seen = [
        (1, "a", "answered", None),
        (2, "b", "failed", "invalid_request"),
        (3, "a", "failed", "duplicate_custom_id"),
    ]
    for _ in range(2):
        assert lines(acme, batch) == seen
        assert [one[0] for one in lines(acme, batch, custom_id="a")] == [1, 3]
        assert lines(acme, batch, custom_id="b") == seen[1:2]
        assert {code for _, code, *_ in groups(acme, batch)} == {"invalid_request", "duplicate_custom_id"}
        if desk.world.find(batch).state == "finalizing":
            desk.assemble(batch)


def test_results_of_an_ended_batch_come_in_input_order(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(NINE)
    path = f"/v1/batches/{batch}/results"
    assert error(acme.get(path, params={"order": "input"}), 409)["code"] == "conflict"
    answered(desk, batch)
    desk.assemble(batch)
    found, after, more = b"", "0", "true"
    while more == "true":
        page = acme.get(path, params={"order": "input", "after": after, "limit": 4})
        found, after, more = found + page.content, page.headers["x-last-line"], page.headers["x-incomplete"]
    both = (desk.result(batch, "output") or b"") + (desk.result(batch, "error") or b"")
    assert sorted(found.splitlines()) == sorted(both.splitlines())
    assert [output.parse(line)["custom_id"] for line in found.splitlines()] == ["q1", *[f"q{n}" for n in range(3, 11)]]
    one = acme.get(path, params={"order": "input", "custom_id": "q7"})
    assert [output.parse(line)["custom_id"] for line in one.content.splitlines()] == ["q7"]
    assert error(acme.get(path, params={"custom_id": "q7"}), 400)["param"] == "custom_id"


def test_what_is_gone_or_was_never_indexed_is_said(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(NINE)
    answered(desk, batch)
    desk.assemble(batch)
    now, path = desk.world.find(batch), f"/v1/batches/{batch}/lines"
    acme.delete(f"/v1/files/{now.input_file}").raise_for_status()
    assert error(acme.get(path, params={"custom_id": "q1"}), 410)["code"] == "input_gone"
    assert acme.get(path, params={"include": "request"}).json()["data"][0]["request"] is None
    acme.delete(f"/v1/files/{now.output_file}").raise_for_status()
    assert error(acme.get(path), 410)["code"] == "results_gone"
    assert len(lines(acme, batch, state="failed")) == 3
    desk.world.sql("update files set index_key = null where id = :id", id=now.error_file)
    assert error(acme.get(path, params={"state": "failed"}), 410)["code"] == "not_indexed"
    assert len(groups(acme, batch)) == 2, "they are the batch's own"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("after=-1", "after"),
        ("after=batch_1", "after"),
        ("after=9999999999", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1.0", "limit"),
        ("limit=101&include=request", "limit"),
        ("state=lost", "state"),
        ("status_code=99", "status_code"),
        ("include=body", "include"),
    ],
)
def test_what_is_asked_wrongly_is_said(acme: httpx.Client, desk: Desk, query: str, param: str) -> None:
    assert error(acme.get(f"/v1/batches/{desk.batch(NINE)}/lines?{query}"), 400)["param"] == param


def test_lines_of_others_are_not_there(stranger: httpx.Client, desk: Desk) -> None:
    batch = desk.batch(NINE)
    for path in ("lines", "errors"):
        assert error(stranger.get(f"/v1/batches/{batch}/{path}"), 404)["code"] == "not_found"
        assert error(stranger.get(f"/v1/jobs/{batch}/{path}"), 404)["code"] == "not_found"


def test_a_small_job_has_lines_too(acme: httpx.Client) -> None:
    asked = [{"custom_id": "a", "body": {}}, {"custom_id": "b", "body": {}}]
    job = acme.post("/v1/jobs", json={"requests": asked, "model": "tiny"}).json()["id"]
    page = acme.get(f"/v1/jobs/{job}/lines", params={"include": "request", "limit": 1}).json()
    assert [(one["custom_id"], one["state"]) for one in page["data"]] == [("a", "open")]
    assert page["has_more"]
    assert page["data"][0]["request"]["text"].startswith("{")
    acme.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    ended = acme.get(f"/v1/jobs/{job}/lines", params={"code": "batch_cancelled", "after": page["next_after"]}).json()
    assert [(one["custom_id"], one["code"]) for one in ended["data"]] == [("b", "batch_cancelled")]
    assert [one["count"] for one in acme.get(f"/v1/jobs/{job}/errors").json()["data"]] == [2]
