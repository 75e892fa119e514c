"""`penstock batches` over a live API."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from api.live import KEY, arrive, chat, completion, create, http, settle_one, upload
from cli.conftest import Penstock
from service.desk import Desk, request
from store.world import World

from penstock.cli.watch import duration, outlook
from penstock.domain.work.batch import BatchEnd, BatchState, LineError
from penstock.formats.input import NOT_JSON
from penstock.service.admin import keys, limits, models
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.batches import batches


def test_the_list_shows_every_batch_over_pages(penstock: Penstock, client: httpx.Client) -> None:
    file = upload(client)["id"]
    made = [create(client, file)["id"] for _ in range(103)]
    done = penstock("batches", "list", "--limit", 200)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == list(reversed(made))
    assert len(penstock("batches", "list", "--limit", 5).stdout.splitlines()) == 6


def test_a_batch_that_waits_says_why(penstock: Penstock, client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"])["id"]
    assert "No io worker is live" in penstock("batches", "show", batch).stdout
    assert json.loads(penstock("batches", "show", batch, "--json").stdout)["id"] == batch


def test_a_failed_batch_shows_its_errors(penstock: Penstock, client: httpx.Client, db: Database) -> None:
    batch = create(client, upload(client)["id"])["id"]
    errors = [LineError("invalid_json_line", NOT_JSON, None, n) for n in range(1, 31)]
    how = BatchEnd(BatchState.FAILED, errors=errors, error_count=40)
    db.run(lambda tx: batches.end(tx.conn, {batch: "evt_1"}, how))
    shown = penstock("batches", "show", batch).stdout
    assert "line 1: This line is not parseable as valid JSON. (invalid_json_line)" in shown
    assert "40 errors in all" in shown
    assert penstock("batches", "watch", batch).exit_code == 1


def test_cancel_says_what_becomes_of_it(penstock: Penstock, client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"])["id"]
    assert penstock("batches", "cancel", batch).stdout == f"{batch} cancelling\n"


def test_a_job_is_watched_to_its_end_and_its_results_are_written(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    job = client.post("/v1/jobs", json={"requests": [{"body": chat() | {"model": "tiny"}}]})
    assert job.status_code == 404
    worker = arrive(db, settings, "gpu", "tiny")
    requests = [{"custom_id": "good", "body": chat()}, {"custom_id": "bad", "body": chat()}]
    job = client.post("/v1/jobs", json={"model": "tiny", "requests": requests}).json()["id"]
    assert "has no results yet" in penstock("batches", "results", job).stderr

    def answer(number: int, custom_id: str) -> tuple[int, bytes]:
        return (200, completion("yes")) if custom_id == "good" else (400, b"{}")

    work = threading.Timer(0.2, settle_one, (db, settings, worker, answer))
    work.start()
    watched = penstock("batches", "watch", job)
    work.join()
    assert watched.exit_code == 0
    assert "1 answered · 1 failed · 0 left" in watched.stdout
    assert f"1 of 2 lines failed: penstock batches results {job} --errors FILE" in watched.stderr
    assert penstock("batches", "watch", job, "--fail-on-errors").exit_code == 3
    [row] = [line.split() for line in penstock("batches", "list", "--jobs").stdout.splitlines() if job in line]
    assert row[4:7] == ["1", "1", "0"], "answered, failed, left"
    assert "2: 1 answered · 1 failed · 0 left" in penstock("batches", "show", job).stdout
    shown = penstock("batches", "results", job)
    assert json.loads(shown.stdout)["custom_id"] == "good"
    assert "1 lines failed" in shown.stderr
    done = penstock("batches", "results", job, "--output", "out.jsonl", "--errors", "err.jsonl")
    assert (done.stdout, done.exit_code) == ("", 0)
    assert json.loads((tmp_path / "out.jsonl").read_text())["custom_id"] == "good"
    assert json.loads((tmp_path / "err.jsonl").read_text())["custom_id"] == "bad"
    assert penstock("batches", "list", "--jobs").stdout.count(job) == 1


@pytest.mark.parametrize(
    ("answered", "more", "status"),
    [(3, "--fail-on-errors", 0), (2, None, 0), (2, "--fail-on-errors", 3), (0, None, 3), (0, "--fail-on-errors", 3)],
)
def test_who_watches_hears_how_it_ended(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings,
    answered: int, more: str | None, status: int,
) -> None:  # fmt: skip
    worker = arrive(db, settings, "gpu", "tiny")
    requests = [{"custom_id": str(n), "body": chat()} for n in range(3)]
    job = client.post("/v1/jobs", json={"model": "tiny", "requests": requests}).json()["id"]

    def answer(number: int, custom_id: str) -> tuple[int, bytes]:
        return (200, completion("yes")) if int(custom_id) < answered else (400, b"{}")

    settle_one(db, settings, worker, answer)
    done = penstock("batches", "watch", job, *filter(None, [more]))
    assert done.exit_code == status, done.output
    assert f"{job} completed · {answered} answered · {3 - answered} failed · 0 left" in done.stdout
    said = f"{3 - answered} of 3 lines failed: penstock batches results {job} --errors FILE"
    assert (said in done.stderr) == (answered < 3)


def test_results_in_files_come_as_they_are(penstock: Penstock, client: httpx.Client, db: Database) -> None:
    batch, file = create(client, upload(client)["id"])["id"], upload(client, b'{"custom_id": "a"}\n' * 9_999)["id"]
    db.run(lambda tx: batches.close(tx.conn, batch, BatchState.COMPLETED))
    db.run(lambda tx: batches.finalize(tx.conn, [batch]))
    db.run(lambda tx: batches.end(tx.conn, {batch: "evt_1"}, BatchEnd(BatchState.COMPLETED, output_file=file)))
    assert penstock("batches", "results", batch).stdout == '{"custom_id": "a"}\n' * 9_999


def test_a_server_that_is_away_and_a_wrong_key_are_said_in_one_line(
    penstock: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("PENSTOCK_API_KEY", "wrong")
        done = penstock("batches", "list")
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
        assert "refuses this key" in done.stderr
    for url in ("http://127.0.0.1:1", "nonsense", "http://[", "ftp://x"):
        done = penstock("batches", "list", "--url", url)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.output
    monkeypatch.delenv("PENSTOCK_API_KEY")
    assert "No API key" in penstock("batches", "list").stderr


def test_half_a_surrogate_pair_in_an_answer_is_shown_in_escapes(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    job = client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    settle_one(db, settings, worker, lambda number, custom_id: (200, completion("é\ud83d")))

    def said(line: dict[str, Any]) -> Any:
        return line["response"]["body"]["choices"][0]["message"]["content"]

    assert said(json.loads(penstock("batches", "results", job).stdout)) == "é\ud83d"
    assert penstock("batches", "results", job, "--output", "out.jsonl").exit_code == 0
    assert said(json.loads((tmp_path / "out.jsonl").read_text())) == "é\ud83d"
    assert said(json.loads(penstock("batches", "show", job, "--json").stdout)["results"][0]) == "é\ud83d"


def test_what_is_wrong_is_not_said_of_the_url(penstock: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "can't be asked of http" in penstock("batches", "show", "batch_\n").stderr
    monkeypatch.setenv("PENSTOCK_API_KEY", "sk-é")
    assert penstock("batches", "list").stderr == "penstock: What PENSTOCK_API_KEY holds is no API key.\n"


def test_a_server_of_another_kind_is_said_to_be_one(penstock: Penstock, tmp_path: Path) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>\xff")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = penstock("batches", "list", "--url", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert "answered 200, but not as Penstock does" in done.stderr


def test_the_key_of_a_data_folder_is_used(penstock: Penstock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENSTOCK_API_KEY")
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert penstock("batches", "list", "--data", tmp_path).exit_code == 0
    monkeypatch.setenv("PENSTOCK_DATA", str(tmp_path))
    assert penstock("models", "list").exit_code == 0


def test_durations_read_well() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 200, 7_500)] == ["0 s", "59 s", "3 min 20 s", "2 h 5 min"]


def test_a_batch_is_paused_resumed_and_set(penstock: Penstock, client: httpx.Client, db: Database) -> None:
    db.run(models.add, "tiny")
    job = client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    assert penstock("batches", "pause", job).stdout == f"{job} paused\n"
    shown = penstock("batches", "show", job).stdout
    assert "not known: paused" in shown
    assert penstock("batches", "list", "--jobs").stdout.splitlines()[1].split()[:3] == [job, "paused", "standard"]
    assert penstock("batches", "resume", job).stdout == f"{job} in_progress\n"
    done = penstock(
        "batches", "set", job, "--lane", "flex", "--window", "2h", "--metadata", "a=1", "--metadata", "b=x=y"
    )
    assert done.exit_code == 0, done.output
    seen = client.get(f"/v1/jobs/{job}").json()
    assert (seen["lane"], seen["completion_window"], seen["metadata"]) == ("flex", "2h", {"a": "1", "b": "x=y"})


def test_what_can_not_be_set_is_said_in_one_line(penstock: Penstock, client: httpx.Client) -> None:
    batch = create(client, upload(client)["id"])["id"]
    for arguments, words in (
        (("set", batch), "Say what to set"),
        (("set", batch, "--metadata", "x"), "--metadata is KEY=VALUE"),
        (("set", batch, "--window", "soon"), "completion_window must be like"),
        (("pause", batch), "is being validated"),
        (("resume", "batch_none"), "No such batch"),
    ):
        done = penstock("batches", *arguments)
        assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
        assert words in done.stderr


def test_an_outlook_reads_well() -> None:
    expected = {"completion_at": 1_200, "earliest_at": 1_125, "latest_at": 1_400, "meets_deadline": True}
    assert outlook(expected, 1_000.0) == "3 min 20 s left (2 min 5 s to 6 min 40 s)"
    assert outlook(expected | {"meets_deadline": False}, 1_150.0) == "50 s left (0 s to 4 min 10 s, after its deadline)"
    assert outlook(expected | {"completion_at": None}, 0.0) == outlook(None, 0.0) == ""


def test_a_batch_shows_what_it_warns_of(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    job = client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    cut = b'{"choices": [{"finish_reason": "length", "message": {"content": ""}}]}'
    settle_one(db, settings, worker, lambda number, custom_id: (200, cut))
    shown = penstock("batches", "show", job).stdout
    assert "1 answer is empty because max_completion_tokens or max_tokens ran out" in shown
    assert "(lines 1)" in shown


def test_a_retry_is_made_of_what_failed_and_its_merged_results_are_fetched(
    penstock: Penstock, client: httpx.Client, db: Database, settings: Settings, tmp_path: Path
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    job = client.post("/v1/jobs", json={"model": "tiny", "body": chat()}).json()["id"]
    settle_one(db, settings, worker, lambda number, custom_id: (400, b"{}"))
    done = penstock("batches", "retry", job, "--status", 400, "--set", "max_tokens=512", "--set", "stop=now")
    assert done.exit_code == 0, done.output
    child = done.stdout.strip()
    assert client.get(f"/v1/jobs/{child}").json()["parent_batch_id"] == job
    [repeats] = [row for row in penstock("batches", "show", child).stdout.splitlines() if row.startswith("repeats")]
    assert job in repeats
    assert child in penstock("batches", "show", job).stdout
    assert "no such line" in penstock("batches", "retry", job, "--answered", "empty").stderr
    failed = penstock("batches", "results", job, "--errors", "failed.jsonl")
    assert (failed.stdout, failed.stderr) == ("", "")
    assert penstock("batches", "results", job, "--merged").stdout == (tmp_path / "failed.jsonl").read_text()
    good, bad = upload(client, b'{"custom_id": "a"}\n')["id"], upload(client, b'{"custom_id": "b"}\n')["id"]
    db.run(lambda tx: batches.close(tx.conn, child, BatchState.COMPLETED))
    db.run(lambda tx: batches.finalize(tx.conn, [child]))
    how = BatchEnd(BatchState.COMPLETED, merged_output_file=good, merged_error_file=bad)
    db.run(lambda tx: batches.end(tx.conn, {child: "evt_1"}, how))
    assert "is no output line" in penstock("batches", "results", child, "--merged").stderr
    shown = penstock("batches", "results", child, "--merged", "--errors", "bad.jsonl")
    assert shown.stdout == '{"custom_id": "a"}\n'
    assert (tmp_path / "bad.jsonl").read_text() == '{"custom_id": "b"}\n'


def test_a_batch_is_followed_to_its_end_while_it_is_answered(
    penstock: Penstock, client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(settings.database_url, settings.model_copy(update={"slice_lines": 2}))
    desk = Desk(world)
    monkeypatch.setenv("PENSTOCK_API_KEY", world.db.run(keys.create, "acme", "test")[1])
    batch = desk.batch(b"\n".join(request(f"q{n}") for n in range(1, 6)))

    def work() -> None:
        desk.validate_it(batch)
        desk.answer(batch, slices=1)
        desk.answer(batch, failed=frozenset({3}))
        desk.assemble(batch)

    timer = threading.Timer(0.3, work)
    timer.start()
    done = penstock("batches", "results", batch, "--follow", "--output", "all.jsonl")
    timer.join()
    assert done.exit_code == 0, done.output
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == ["q1", "q2", "q3", "q4", "q5"]
    words = f"1 of 5 lines failed: penstock batches results {batch} --errors FILE\n"
    assert done.stderr == words
    again = penstock("batches", "results", batch, "--follow", "--fail-on-errors")
    assert (again.exit_code, again.stderr, again.stdout.encode()) == (3, words, b"\n".join([*lines, b""]))
    for arguments in ((batch, "--errors", "bad"), (batch, "--merged"), ("job_1",)):
        assert "--follow is for batches" in penstock("batches", "results", *arguments, "--follow").stderr
    assert "No such batch" in penstock("batches", "results", "batch_none", "--follow").stderr
    cancelled = desk.validate(request("q1"))
    world.cancel(cancelled)
    desk.assemble(cancelled)
    ended = penstock("batches", "results", cancelled, "--follow")
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["error"]["code"] == "batch_cancelled", "nothing but lines"
    assert "cancelled" in ended.stderr
    world.close()


def test_who_follows_waits_where_its_rate_is_used_up(
    penstock: Penstock, client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings.database_url, settings)
    desk = Desk(world)
    key = world.db.run(keys.create, "acme", "test")[1]
    monkeypatch.setenv("PENSTOCK_API_KEY", key)
    world.db.run(limits.change, "acme", {"requests_per_minute": 60})
    batch = desk.validate(b"\n".join(request(f"q{n}") for n in range(1, 4)))
    refused = threading.Event()

    def work() -> None:
        with http(str(client.base_url), key) as other:
            while other.get("/v1/limits").status_code == 200:
                pass
        refused.set()
        desk.answer(batch)
        desk.assemble(batch)

    timer = threading.Timer(1.0, work)
    timer.start()
    done = penstock("batches", "results", batch, "--follow")
    timer.join()
    assert refused.is_set()
    assert (done.exit_code, done.stderr) == (0, "")
    assert [json.loads(line)["custom_id"] for line in done.stdout.splitlines()] == ["q1", "q2", "q3"]
    world.close()
