"""New batch: a file is read and uploaded by the page's scripts, or sent by a plain form; then its own page makes it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import CHAT, arrive, http, upload
from console.browser import Browser, Page, opened
from console.looks import look
from playwright.sync_api import Route
from sqlalchemy import text

from penstock.domain.calls.ingress import Load
from penstock.domain.engines.profiles import ECHO
from penstock.service.admin import keys, limits, models, prices
from penstock.service.calls import ingresses
from penstock.service.control import budgets
from penstock.service.core.transaction import Database
from penstock.settings import Settings

OURS = {"sec-fetch-site": "same-origin"}
MODEL = "tiny"


def line(custom_id: Any, **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | more


def jsonl(*requests: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in requests)


@pytest.fixture(scope="module", autouse=True)
def measured_model(db: Database, settings: Settings, url: str) -> None:
    """A model with a price and a worker whose speed is known, so that there is something to estimate."""
    db.run(models.add, MODEL)


@pytest.fixture
def client(url: str, tenant_key: str) -> Iterator[httpx.Client]:
    """The API as the same tenant asks it: what the pages made is looked at with it."""
    with http(url, tenant_key) as made:
        yield made


@contextmanager
def logged_in(url: str, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=OURS, timeout=30) as made:
        assert made.post("/console/login", data={"key": key, "then": "/batches"}).status_code == 303
        yield made


def batches(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/batches").json()["data"]
    return found


def form_of(page: str) -> dict[str, Any]:
    """What a browser would send of the page's form, left as it is."""
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    return {
        "token": token[1], "lane": "flex", "window": "24h", "endpoint": CHAT, "model": "", "on_invalid": "fail",
        "dedup": "on", "plan": "on", "act": "create",
    }  # fmt: skip


def test_without_scripts_a_file_is_uploaded_estimated_and_made_a_batch(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "plain.jsonl"
    file.write_bytes(jsonl(*(line(f"q{n}") for n in range(30))))
    with opened(chromium, url, tenant_key, java_script_enabled=False) as page:
        page.goto("/console/batches")
        page.get_by_role("link", name="New batch").click()
        page.get_by_label("A JSONL file").set_input_files(file)
        page.get_by_role("button", name="Upload and go on").click()
        page.get_by_role("heading", name="plain.jsonl").wait_for()
        assert page.get_by_text("no worker serves this model now").count() == 3
        load = Load(open=False, calls=0, lines=0, budget=8, reason="", tokens_per_second=1_000.0)
        db.run(ingresses.pulse, arrive(db, settings, "gpu", MODEL, ECHO), load)
        db.run(prices.set_price, MODEL, input="0.20", cached_input=None, output="0.60", gpu_second=None, currency="EUR")
        page.get_by_label("Window").fill("2h")
        page.get_by_role("button", name="Estimate again").click()
        assert page.get_by_text("within the window").count() == 3
        assert page.get_by_text("before the window ends").count() == 3
        assert page.get_by_text("EUR").count() >= 3
        page.get_by_label("flex").check()
        page.get_by_text("Metadata", exact=True).click()
        page.get_by_label("Key 1").fill("team")
        page.get_by_label("Value 1").fill("search")
        page.get_by_text("How it is run").click()
        page.get_by_label("Order lines for the engine").uncheck()
        page.get_by_label("Output files are kept for").fill("1.5")
        page.get_by_role("button", name="Create the batch").click()
        page.wait_for_url("**/console/batches/batch_*")
        made = batches(client)[0]
        assert page.url.endswith(made["id"])
    assert (made["lane"], made["completion_window"], made["metadata"]) == ("flex", "2h", {"team": "search"})
    kept = "select output_expires_seconds from batches where id = :id"
    assert db.run(lambda tx: tx.conn.execute(text(kept), {"id": made["id"]}).scalar_one()) == 129_600


def test_a_file_that_is_chosen_before_the_script_came_goes_up_once_it_is_there(
    chromium: Browser, url: str, tenant_key: str, tmp_path: Path
) -> None:
    file = tmp_path / "early.jsonl"
    file.write_bytes(jsonl(line("one")))

    def too_late(script: Route) -> None:
        page.get_by_label("A JSONL file").set_input_files(file)
        script.continue_()

    with opened(chromium, url, tenant_key) as page:
        page.route(re.compile(r"/new_batch\.[^/]*js"), too_late)
        page.goto("/console/batches/new")
        page.get_by_role("heading", name="early.jsonl", level=1).wait_for()


def test_what_is_refused_stands_beside_its_field_and_what_was_typed_stays(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client
) -> None:
    file = upload(client, jsonl(line("one"), b"{nothing"), "<img src=x onerror=alert(1)>‮.jsonl")["id"]
    before = len(batches(client))
    with opened(chromium, url, tenant_key) as page:
        page.goto(f"/console/batches/new/{file}")
        page.get_by_text("Of 2 lines that were looked at, 1 would be refused").wait_for()
        assert page.locator("img[src=x]").count() == 0
        assert "⟨U+202E⟩" in page.get_by_role("heading", level=1).inner_text()
        look(page, "new-batch-file")
        page.get_by_text("Webhook", exact=True).click()
        page.get_by_label("URL").fill("http://127.0.0.1:1/hook")
        page.get_by_label("Window").fill("2 fortnights")
        page.get_by_text("How it is run").click()
        page.get_by_label("Output files are kept for").fill("two")
        page.get_by_role("button", name="Create the batch").click()
        page.locator("#output_days-wrong").get_by_text("an hour (0.05 days) to 30 days").wait_for()
        assert page.get_by_label("Output files are kept for").input_value() == "two"
        page.get_by_label("Output files are kept for").fill("7")
        page.get_by_role("button", name="Create the batch").click()
        page.locator("#window-wrong").get_by_text("completion_window must be like").wait_for()
        page.locator("#webhook_url-wrong").wait_for()
        assert page.get_by_label("Window").input_value() == "2 fortnights"
        assert page.get_by_label("URL").input_value() == "http://127.0.0.1:1/hook"
        look(page, "new-batch-refused")
    assert len(batches(client)) == before


def test_a_form_that_is_sent_twice_makes_one_batch(url: str, tenant_key: str, client: httpx.Client) -> None:
    file = upload(client, jsonl(line("one")))["id"]
    before = len(batches(client))
    with logged_in(url, tenant_key) as browser:
        place = f"/console/batches/new/{file}"
        sent = form_of(browser.get(place).text)
        first, again = browser.post(place, data=sent), browser.post(place, data=sent)
        assert (first.status_code, again.status_code) == (303, 303)
        assert first.headers["location"] == again.headers["location"]
        changed = browser.post(place, data=sent | {"lane": "priority"})
        assert (changed.status_code, "used before" in changed.text) == (409, True)
    assert len(batches(client)) == before + 1


def test_a_viewer_and_another_tenant_make_none(
    url: str, viewer_key: str, tenant_key: str, client: httpx.Client, db: Database
) -> None:
    file = upload(client, jsonl(line("one")))["id"]
    before = len(batches(client))
    begun = client.post("/v1/uploads", json=upload_of(10)).json()["id"]
    with logged_in(url, viewer_key) as browser:
        assert "New batch" not in browser.get("/console/batches").text
        for place in ("/console/batches/new", f"/console/batches/new/{file}"):
            assert browser.get(place).status_code == 403
            assert browser.post(place, data={"act": "create"}).status_code == 403
        assert browser.post("/console/uploads", json=upload_of(10)).status_code == 403
        assert browser.post(f"/console/uploads/{begun}/cancel").status_code == 403
    other = db.run(keys.create, "team-b", "test")[1]
    with logged_in(url, other) as browser, http(url, other) as theirs:
        place = f"/console/batches/new/{file}"
        sent = form_of(browser.get(f"/console/batches/new/{upload(theirs, jsonl(line('one')))['id']}").text)
        assert (browser.get(place).status_code, browser.post(place, data=sent).status_code) == (404, 404)
        assert browser.post(f"/console/uploads/{begun}/cancel").status_code == 404
    assert client.get(f"/v1/uploads/{begun}").json()["status"] == "pending"
    assert len(batches(client)) == before


def upload_of(size: int) -> dict[str, Any]:
    return {"filename": "a.jsonl", "purpose": "batch", "bytes": size, "mime_type": "text/plain"}


def test_a_plain_form_that_brings_no_file_is_told_so(url: str, tenant_key: str) -> None:
    with logged_in(url, tenant_key) as browser:
        answer = browser.post("/console/batches/new", files={"purpose": (None, "batch")})
        assert answer.status_code == 400
        assert "Missing required parameter: &#39;file&#39;" in answer.text
        empty = browser.post("/console/batches/new", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"")})
        assert (empty.status_code, browser.get(empty.headers["location"]).status_code) == (303, 200)


def test_a_good_file_is_uploaded_and_a_double_click_makes_one_batch_of_it(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client, tmp_path: Path
) -> None:
    file = tmp_path / "good.jsonl"
    data = b"\xef\xbb\xbf" + jsonl(line("one"), b"", line("tw\u00f6"), line("three", url=CHAT)).removesuffix(b"\n")
    file.write_bytes(data)
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        look(page, "new-batch")
        page.get_by_label("A JSONL file").set_input_files(file)
        page.get_by_role("heading", name="good.jsonl", level=1).wait_for()
        page.get_by_text("3 lines.").wait_for()
        id = page.url.partition("/new/")[2].partition("?")[0]
        assert client.get(f"/v1/files/{id}/content").content == data
        before = len(batches(client))
        page.get_by_role("button", name="Create the batch").dblclick()
        page.get_by_role("heading", name=re.compile("^batch_")).wait_for()
    assert len(batches(client)) == before + 1


def test_a_quota_and_a_spent_budget_are_told_on_the_page(url: str, db: Database) -> None:
    key = db.run(keys.create, "team-c", "test")[1]
    sent: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", jsonl(line("one")))}}
    with logged_in(url, key) as browser:
        place = browser.post("/console/batches/new", **sent).headers["location"]
        form = form_of(browser.get(place).text)
        db.run(limits.change, "team-c", {"files": 1}, None)
        refused = browser.post("/console/batches/new", **sent)
        assert (refused.status_code, "files of your tenant is 1" in refused.text) == (429, True)
        assert (
            "files of your tenant is 1"
            in browser.post("/console/uploads", json=upload_of(9)).json()["error"]["message"]
        )
        db.run(budgets.set_budget, "team-c", "0")
        db.run(budgets.look, "team-c")
        refused = browser.post(place, data=form)
        assert refused.status_code == 429
        assert re.search(r'<div class="note bad" role="alert"><p>[^<]*budget', refused.text)


WRONG = (
    (b"{nothing", "This line is not parseable as valid JSON."),
    (b'{"custom_id": "\xff\xfe"}', "This line is not parseable as valid JSON."),
    (b"[1, 2]", "This line is not parseable as valid JSON."),
    (line(None), "Missing required parameter: 'custom_id'."),
    (line(7), "custom_id must be a string."),
    (line("x" * 513), "custom_id is longer than 512 bytes."),
    (line("good"), "An earlier line has this custom_id."),
    (line("method", method="GET"), "method must be 'POST'."),
    (line("url", url=None), "Missing required parameter: 'url'."),
    (line("other-url", url="/v1/embeddings"), f"The url of each line must be that of the first, '{CHAT}'."),
    (line("body", body=None), "Missing required parameter: 'body'."),
    (line("body-text", body="text"), "body must be a JSON object."),
    (line("model", body={"model": 7}), "body.model must be a string of at most 200 characters."),
    (line("stream", body={"model": MODEL, "stream": True}), "A batch can't stream: leave out body.stream."),
    (line("<img src=x onerror=alert(1)>\u202e", url=""), "Missing required parameter: 'url'."),
)


def test_errors_are_shown_with_their_lines_and_a_mended_file_is_made_a_batch(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client, tmp_path: Path
) -> None:
    bad, mended = tmp_path / "bad.jsonl", tmp_path / "mended.jsonl"
    nameless = line("nameless", body={"messages": []})
    bad.write_bytes(jsonl(line("good"), *(one for one, _ in WRONG), nameless, *(b"?" for _ in range(200))))
    mended.write_bytes(jsonl(line("good"), line("too", url=CHAT)))
    before, files = len(batches(client)), len(client.get("/v1/files").json()["data"])
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        page.get_by_label("A JSONL file").set_input_files(bad)
        page.get_by_role("heading", name=f"{200 + len(WRONG)} lines would be refused").wait_for()
        page.get_by_role("button", name="Choose the mended file").wait_for()
        rows = [row.split("\t") for row in page.locator("#new-batch-faults tbody tr").all_inner_texts()]
        assert [(int(row[0]), row[1]) for row in rows[: len(WRONG)]] == [
            (number, words) for number, (_, words) in enumerate(WRONG, 2)
        ]
        assert len(rows) == 100
        assert page.get_by_text("The first 100 of them:").count() == 1
        assert page.get_by_text(f"1 line, first line {len(WRONG) + 2}: choose one on the next page").count() == 1
        assert rows[len(WRONG) - 1][2] == "<img src=x onerror=alert(1)>⟨U+202E⟩"
        assert page.locator("img[src=x]").count() == 0
        look(page, "new-batch-faults")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose the mended file").click()
        chooser.value.set_files(mended)
        page.get_by_role("heading", name="mended.jsonl", level=1).wait_for()
        page.get_by_role("button", name="Create the batch").click()
        page.wait_for_url("**/console/batches/batch_*")
    assert len(batches(client)) == before + 1
    assert len(client.get("/v1/files").json()["data"]) == files + 1, "nothing of the bad file is kept"


@pytest.mark.slow
def test_a_dropped_gzip_file_with_errors_goes_on_without_those_lines(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client
) -> None:
    packed = gzip.compress(jsonl(line("good"), b"?", line("too")))
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        dropped = page.evaluate_handle(
            """(bytes) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "packed.jsonl.gz"));
              return data;
            }""",
            list(packed),
        )
        page.locator("[data-drop]").dispatch_event("drop", {"dataTransfer": dropped})
        page.get_by_role("button", name="Go on without these lines").click()
        page.get_by_text("2 lines").first.wait_for()
        assert page.get_by_label("Lines that are refused").input_value() == "skip"
        page.get_by_role("button", name="Create the batch").click()
        page.wait_for_url("**/console/batches/batch_*")


@contextmanager
def slow_upload(page: Page, bytes_per_second: int) -> Iterator[Callable[[bool], object]]:
    """The browser's own network, as on a slow line; what it gives takes the line away, and gives it back whole."""
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    whole = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", whole | {"uploadThroughput": bytes_per_second})
    yield lambda offline: network.send("Network.emulateNetworkConditions", whole | {"offline": offline})
    network.send("Network.emulateNetworkConditions", whole)


MANY = 200_000


@pytest.fixture(scope="module")
def many_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200,000 lines, about 30 MB, of which the last one but one is wrong."""
    file = tmp_path_factory.mktemp("many") / "many.jsonl"
    one = jsonl(line("CUSTOM")).replace(b"CUSTOM", b"%d")
    with file.open("wb") as out:
        out.writelines(one % n for n in range(MANY - 2))
        out.write(b"?\n" + one % MANY)
    return file


def test_a_large_file_is_read_while_the_page_lives_and_its_upload_can_be_cancelled(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client, many_lines: Path
) -> None:
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        page.evaluate("""() => {
          window.turns = 0;  // how often the page itself had its turn while the file was read
          window.told = new Set();
          const read = document.querySelector("[data-read]");
          new MutationObserver(() => window.told.add(read.textContent)).observe(read, { childList: true });
          const turn = () => {
            window.turns += window.told.size > 0;
            if (document.getElementById("new-batch-faults").hidden) setTimeout(turn);
          };
          turn();
        }""")
        with slow_upload(page, 3_000_000):
            with page.expect_response("**/console/uploads") as begun:
                page.get_by_label("A JSONL file").set_input_files(many_lines)
            id = begun.value.json()["id"]
            page.get_by_role("heading", name="1 line would be refused").wait_for()
            assert page.locator("#new-batch-faults tbody tr").inner_text().startswith(f"{MANY - 1:,}\t")
            page.get_by_text(f"{MANY:,} lines").first.wait_for()
            assert page.evaluate("window.told.size") >= 5
            assert page.evaluate("window.turns") >= 5
            assert page.get_by_role("button", name="Go on without these lines").is_hidden(), "it is not uploaded yet"
            assert client.get(f"/v1/uploads/{id}").json()["status"] == "pending"
            page.get_by_role("button", name="Cancel").click()
            page.get_by_text("Cancelled: nothing of it is kept.").wait_for()
        page.wait_for_function(
            "id => fetch('/console/batches').then(() => performance.getEntriesByType('resource')"
            ".some((one) => one.name.endsWith(`/${id}/cancel`)))", arg=id,
        )  # fmt: skip
    assert client.get(f"/v1/uploads/{id}").json()["status"] == "cancelled"


def test_a_part_that_is_lost_with_the_connection_is_sent_again(
    chromium: Browser, url: str, tenant_key: str, client: httpx.Client, tmp_path: Path
) -> None:
    file = tmp_path / "twice.jsonl"
    file.write_bytes(jsonl(line("one", note="x" * 2_000_000)))
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        with slow_upload(page, 100_000) as offline:
            with page.expect_request("**/console/uploads/*/parts"):
                page.get_by_label("A JSONL file").set_input_files(file)
            page.get_by_text("1 line", exact=True).wait_for()
            offline(True)
            page.get_by_text("Trying again (1 of 5)…").wait_for()
            offline(False)
        page.get_by_role("heading", name="twice.jsonl", level=1).wait_for()
        id = page.url.partition("/new/")[2].partition("?")[0]
        assert client.get(f"/v1/files/{id}").json()["bytes"] == file.stat().st_size


@pytest.mark.slow
def test_a_file_of_a_gib_needs_the_memory_of_a_chunk(
    chromium: Browser, url: str, tenant_key: str, tmp_path: Path
) -> None:
    file = tmp_path / "gib.jsonl"
    with file.open("wb") as out:
        out.write(jsonl(line("one")))
        out.truncate(1 << 30)  # zeros, as one line that has no end
    with opened(chromium, url, tenant_key) as page:
        page.goto("/console/batches/new")
        before = most_memory(chromium)
        with slow_upload(page, 1_000_000):
            page.get_by_label("A JSONL file").set_input_files(file)
            page.get_by_role("heading", name="1 line would be refused").wait_for(timeout=120_000)
            page.get_by_text("The line is longer than 8388608 bytes.").wait_for()
            page.get_by_role("button", name="Cancel").click()
        assert most_memory(chromium) - before < 200 << 20


def most_memory(browser: Browser) -> int:
    """The most bytes that any of the browser's pages ever held, their workers included."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    pages = [Path(f"/proc/{one['id']}/status").read_text() for one in processes if one["type"] == "renderer"]
    return max(int(re.search(r"VmHWM:\s+(\d+) kB", one)[1]) for one in pages) << 10  # type: ignore[index]
