"""`GET /v1/batches/{id}/results`: what is asked wrongly is said, and what is told beside the lines is right."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from api.live import error, http
from service import broom
from service.desk import Desk, request
from store.world import World

from penstock.formats import output
from penstock.service.admin import keys
from penstock.settings import Settings

SIX = b"\n".join(request(f"q{n}") for n in range(1, 7))


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    """Hands that do what workers would, in the API's own database."""
    world = World(settings.database_url, settings.model_copy(update={"slice_lines": 2}))
    yield Desk(world)
    world.check()
    world.close()


@pytest.fixture
def acme(url: str, desk: Desk) -> Iterator[httpx.Client]:
    """A client of the tenant whose batches the desk makes."""
    with http(url, desk.world.db.run(keys.create, "acme", "test")[1]) as one:
        yield one


def told(answer: httpx.Response) -> tuple[list[str], str, str]:
    """The custom_ids of an answer, and its two headers."""
    assert answer.status_code == 200, answer.text
    ids = [output.parse(line)["custom_id"] for line in answer.content.splitlines()]
    return ids, answer.headers["x-last-line"], answer.headers["x-incomplete"]


def test_a_batch_is_read_from_its_creation_over_its_end_by_one_cursor(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.batch(SIX)
    path = f"/v1/batches/{batch}/results"
    assert told(acme.get(path)) == ([], "0", "true")
    desk.validate_it(batch)
    assert told(acme.get(path)) == ([], "0", "true")
    desk.answer(batch, slices=2, failed=frozenset({3}))
    assert told(acme.get(path)) == (["q1", "q2", "q3", "q4"], "4", "true")
    assert told(acme.get(path, params={"after": 1, "limit": 2})) == (["q2", "q3"], "3", "true")
    assert told(acme.get(path, params={"after": 4})) == ([], "4", "true")
    desk.answer(batch)
    assert told(acme.get(path, params={"after": 4})) == (["q5", "q6"], "6", "true"), "it has not ended yet"
    desk.assemble(batch)
    assert told(acme.get(path, params={"after": 4, "limit": 1})) == (["q5"], "5", "true")
    assert told(acme.get(path, params={"after": 5})) == (["q6"], "6", "false")
    assert told(acme.get(path, params={"after": 6})) == ([], "6", "false")
    everything = acme.get(path)
    assert everything.headers["content-type"] == "application/jsonl"
    both = (desk.result(batch, "output") or b"") + (desk.result(batch, "error") or b"")
    assert sorted(everything.content.splitlines()) == sorted(both.splitlines())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("after=-1", "after"),
        ("after=", "after"),
        ("after=1.0", "after"),
        ("after=1_0", "after"),
        ("after=%201", "after"),
        ("after=%C2%B2", "after"),
        ("after=batch_1", "after"),
        ("after=7", "after"),
        ("after=" + "9" * 18, "after"),
        ("after=" + "9" * 5_000, "after"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=all", "limit"),
        ("limit=true", "limit"),
        ("limit=" + "9" * 5_000, "limit"),
    ],
)
def test_a_cursor_or_limit_that_is_none_is_a_clear_400(acme: httpx.Client, desk: Desk, query: str, param: str) -> None:
    said = error(acme.get(f"/v1/batches/{desk.validate(SIX)}/results?{query}"), 400)
    assert said["param"] == param
    assert said["message"].startswith(f"Invalid '{param}': ")
    assert len(said["message"]) < 100


def test_a_cursor_below_nothing_is_told_what_it_must_be(acme: httpx.Client) -> None:
    said = error(acme.get("/v1/batches/batch_none/results?after=-1"), 400)
    assert said["message"] == "Invalid 'after': it must be at least 0."


def test_the_most_may_be_asked_for(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(SIX)
    desk.answer(batch, slices=1)
    assert told(acme.get(f"/v1/batches/{batch}/results?after=0&limit=10000")) == (["q1", "q2"], "2", "true")


def test_what_is_another_tenants_or_a_job_or_gone_is_a_404(
    acme: httpx.Client, client: httpx.Client, desk: Desk
) -> None:
    batch = desk.validate(SIX)
    assert error(client.get(f"/v1/batches/{batch}/results"), 404) == error(client.get("/v1/batches/x/results"), 404) | {
        "message": f"No such batch: {batch!r}."
    }
    desk.answer(batch)
    desk.assemble(batch)
    acme.delete(f"/v1/batches/{batch}").raise_for_status()
    error(acme.get(f"/v1/batches/{batch}/results"), 404)
    error(acme.get(f"/v1/batches/{desk.world.job()}/results"), 404)


def test_once_its_segments_are_swept_it_is_a_410_that_names_the_files(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(SIX)
    desk.answer(batch)
    desk.assemble(batch)
    broom.once(desk)
    said = error(acme.get(f"/v1/batches/{batch}/results?after=2"), 410)
    assert said["code"] == "results_in_files"
    assert "output_file_id" in said["message"]


def test_a_segment_that_cannot_be_read_is_an_error_and_not_a_cut_answer(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(SIX)
    desk.answer(batch, slices=1)
    desk.blobs.delete(desk.world.one("select blob_key from segments"))
    error(acme.get(f"/v1/batches/{batch}/results"), 500)


def test_head_tells_the_cursor_and_reads_no_segment(acme: httpx.Client, desk: Desk) -> None:
    batch = desk.validate(SIX)
    desk.answer(batch, slices=1)
    path = f"/v1/batches/{batch}/results"
    got, head = acme.get(path), acme.head(path)
    assert told(got) == (["q1", "q2"], "2", "true")
    assert told(head) == ([], "2", "true")
    assert head.headers["content-type"] == got.headers["content-type"]
    desk.blobs.delete(desk.world.one("select blob_key from segments"))
    assert told(acme.head(path)) == ([], "2", "true")
    assert told(acme.head(path, params={"after": 1, "limit": 1})) == ([], "2", "true")


def test_its_description_names_the_headers_and_the_410(client: httpx.Client) -> None:
    page = client.get("/openapi.json").json()["paths"]["/v1/batches/{batch_id}/results"]["get"]
    assert set(page["responses"]["200"]["headers"]) == {"x-incomplete", "x-last-line"}
    assert list(page["responses"]["200"]["content"]) == ["application/jsonl"]
    assert {"200", "410", "4XX", "5XX"} <= set(page["responses"])
    after, limit = (next(p["schema"] for p in page["parameters"] if p["name"] == name) for name in ("after", "limit"))
    assert (after["type"], after["minimum"], after["default"]) == ("integer", 0, 0)
    assert (limit["type"], limit["minimum"], limit["maximum"], limit["default"]) == ("integer", 1, 10_000, 1_000)
