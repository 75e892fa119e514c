"""Results: answers a page at a time, as text or as columns, found by custom_id, and taken away as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pyarrow.parquet
import pytest
from api.live import chat, http
from console.browser import Browser, opened
from console.lines import HOSTILE, answer, asked, at_desk, is_inert, key_of, reader
from console.looks import look
from service.desk import Desk

from penstock.settings import Settings

IDS = [f"q{n}" for n in range(1, 31)]
VECTOR = json.dumps({"data": [{"embedding": [0.5] * 768}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}).encode()


@pytest.fixture(scope="module")
def desk(settings: Settings, url: str) -> Iterator[Desk]:
    """Hands that do what workers would."""
    with at_desk(settings, slice_lines=10) as desk:
        yield desk


@pytest.fixture(scope="module")
def acme(url: str, desk: Desk) -> Iterator[httpx.Client]:
    """Somebody of the tenant."""
    with reader(url, key_of(desk)) as client:
        yield client


def ended(desk: Desk, bodies: dict[int, bytes], custom_ids: list[str] | None = None) -> str:
    """A batch that was answered so."""
    ids = custom_ids or [f"q{n}" for n in range(1, len(bodies) + 1)]
    batch = desk.validate(asked(*ids))
    desk.answer(batch, bodies=bodies)
    desk.assemble(batch)
    return batch


@pytest.fixture(scope="module")
def texts(desk: Desk) -> str:
    """Thirty answers: hostile ones, one of two lines, one of 8 MiB, and numbers."""
    bodies = {n: answer(f"answer {n}") for n in range(1, 31)}
    bodies |= {1: answer(HOSTILE, f"stop{HOSTILE}"), 2: answer("one\ntwo"), 3: answer("<b>\"&'" * 1_400_000, "length")}
    bodies |= {4: VECTOR, 5: b'{"new":"kind"}', 6: answer("=cmd()|' /C calc'!A0")}
    return ended(desk, bodies, [*IDS[:29], f"=last {HOSTILE}"])


@pytest.fixture(scope="module")
def objects(desk: Desk) -> str:
    """Answers that are JSON objects: of many keys, and with hostile ones."""
    wide = {f"key{n}": n for n in range(20)}
    return ended(
        desk,
        {
            1: answer(json.dumps({"name": "Ann", "note": HOSTILE, "tags": ["a", "b"], **wide})),
            2: answer(json.dumps({"name": "Bob", f"=k {HOSTILE}": None})),
        },
    )


def test_answers_are_read_page_by_page_and_found_by_their_custom_id(
    chromium: Browser, url: str, desk: Desk, texts: str, objects: str
) -> None:
    with opened(chromium, url, key_of(desk)) as page:
        page.goto(f"/console/batches/{texts}/results")
        look(page, "results-text")
        assert page.get_by_text("768 numbers", exact=True).is_visible()
        assert page.locator("td.answer").nth(1).inner_text() == "one\ntwo"
        page.get_by_role("link", name="Next page").click()
        page.get_by_text("answer 29").wait_for()
        page.get_by_label("custom_id").fill("q17")
        page.get_by_role("button", name="Find").click()
        page.get_by_text("answer 17").wait_for()
        assert page.locator("tbody tr").count() == 1
        page.goto(f"/console/batches/{objects}/results")
        look(page, "results-columns")
        page.get_by_role("link", name="As text").click()
        page.get_by_text('{"name": "Bob"').wait_for()
        assert page.evaluate("typeof window.x") == "undefined"
        with page.expect_download() as taken:
            page.get_by_role("link", name="JSONL").click()
        assert taken.value.path().read_bytes() == desk.result(objects, "output")


def test_hostile_answers_are_text_and_8_mib_are_a_small_page(acme: httpx.Client, texts: str, objects: str) -> None:
    for path in (f"{texts}/results", f"{texts}/results?after=25", f"{objects}/results", f"{objects}/results?view=raw"):
        page = acme.get(f"/console/batches/{path}")
        assert page.status_code == 200
        assert is_inert(page.text), path
        assert len(page.content) < 100_000
    line = acme.get(f"/console/batches/{texts}/lines/3")
    assert "Cut, after 16 KiB at the latest" in line.text
    assert len(line.content) < 150_000


def test_json_objects_are_twelve_columns_at_most(acme: httpx.Client, objects: str) -> None:
    page = acme.get(f"/console/batches/{objects}/results").text
    heads = page.partition("<thead>")[2].partition("</thead>")[0]
    assert heads.count("<th ") == 2 + 12 + 3
    assert ">key8<" in heads
    assert ">key9<" not in heads
    assert "[&#34;a&#34;,&#34;b&#34;]" in page


def test_a_download_is_the_apis_bytes_also_in_parts(acme: httpx.Client, desk: Desk, texts: str) -> None:
    path = f"/console/batches/{texts}/results.jsonl"
    whole = acme.get(path)
    assert whole.content == desk.result(texts, "output")
    assert whole.headers["content-disposition"].startswith("attachment")
    part = acme.get(path, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])


def test_csv_has_each_answer_and_no_formula(acme: httpx.Client, texts: str, objects: str) -> None:
    csv.field_size_limit(64 * 1024 * 1024)
    rows = list(csv.DictReader(io.StringIO(acme.get(f"/console/batches/{texts}/results.csv").text, newline="")))
    assert [one["custom_id"] for one in rows[:29]] == IDS[:29]
    assert rows[29]["custom_id"] == f"'=last {HOSTILE}"
    assert rows[5]["answer"] == "'=cmd()|' /C calc'!A0"
    assert rows[1]["answer"] == "one\ntwo"
    assert rows[2]["answer"] == "<b>\"&'" * 1_400_000
    assert (rows[1]["input_tokens"], rows[1]["output_tokens"], rows[1]["finish_reason"]) == ("5", "3", "stop")
    assert json.loads(rows[3]["answer"])["data"][0]["embedding"] == [0.5] * 768
    wide = acme.get(f"/console/batches/{objects}/results.csv")
    assert wide.headers["content-type"] == "text/csv; charset=utf-8"
    both = list(csv.DictReader(io.StringIO(wide.text, newline="")))
    assert (both[0]["answer.name"], both[0]["answer.tags"], both[1]["answer.tags"]) == ("Ann", '["a","b"]', "")


def test_parquet_has_the_same(acme: httpx.Client, objects: str, texts: str) -> None:
    table = pyarrow.parquet.read_table(
        io.BytesIO(acme.get(f"/console/batches/{objects}/results.parquet").content)
    ).to_pydict()
    assert (table["custom_id"], table["answer.name"], table["output_tokens"]) == (["q1", "q2"], ["Ann", "Bob"], [3, 3])
    long = pyarrow.parquet.read_table(io.BytesIO(acme.get(f"/console/batches/{texts}/results.parquet").content))
    assert long.num_rows == 30


def test_a_job_without_files_has_results_too(url: str, acme: httpx.Client, desk: Desk) -> None:
    asks = {"model": "tiny", "requests": [{"custom_id": one, "body": chat()} for one in "ab"]}
    with http(url, key_of(desk)) as client:
        job = client.post("/v1/jobs", json=asks).json()["id"]
    assert "Nothing is answered yet" in acme.get(f"/console/jobs/{job}/results").text
    assert acme.get(f"/console/jobs/{job}/results.csv").status_code == 404
    desk.world.cancel(job, "job")
    assert "No line was answered" in acme.get(f"/console/jobs/{job}/results").text


def test_the_tail_shows_what_is_answered_as_it_comes_until_it_has_ended(
    chromium: Browser, url: str, desk: Desk
) -> None:
    batch = desk.validate(asked(*(f"t{n}" for n in range(1, 31))))
    bodies = {n: answer(f"said {n} {HOSTILE}") for n in range(1, 31)} | {7: answer("x" * 100_000)}
    with opened(chromium, url, key_of(desk)) as page:
        page.goto(f"/console/batches/{batch}/failed")
        look(page, "failed-empty")
        page.get_by_role("link", name="Results").click()
        page.get_by_role("heading", name="Nothing is answered yet").wait_for()
        look(page, "results-empty")
        page.get_by_role("link", name="As they come").click()
        page.get_by_text("Nothing is answered yet").wait_for()
        page.locator("[data-live-word]", has_text="Live").wait_for()
        desk.answer(batch, bodies=bodies, slices=1, failed=frozenset({3}))
        page.get_by_text("said 10").wait_for()
        assert page.locator("tbody tr").first.inner_text().startswith("t10")
        assert page.locator("tbody tr").count() == 10
        assert page.locator("td .status.bad").count() == 1
        look(page, "results-tail")
        desk.answer(batch, bodies=bodies)
        desk.assemble(batch)
        page.get_by_text("It has ended").wait_for()
        assert page.locator("tbody tr").count() == 30
        assert page.evaluate("typeof window.x") == "undefined"


def test_a_stranger_takes_nothing_away(url: str, texts: str, tenant_key: str) -> None:
    with reader(url, tenant_key) as stranger:
        for path in (
            "results",
            "results/tail",
            "results/tail/stream",
            "results.jsonl",
            "results.csv",
            "results.parquet",
        ):
            assert stranger.get(f"/console/batches/{texts}/{path}").status_code == 404, path
