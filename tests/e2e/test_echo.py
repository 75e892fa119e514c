"""Whole lives of batches and jobs on a live platform with the simulated engine, deaths included."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.live import PENSTOCK, Platform, chat, jsonl, said, until
from openai.types import Batch
from worker.engines import ended

pytestmark = pytest.mark.timeout(300)


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


def ids(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def codes(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["error"]["code"] for line in lines)


def test_a_batch_comes_back_in_input_order_and_refused_lines_are_in_the_error_file(platform: Platform) -> None:
    refused = {n for n in range(900) if n % 10 == 3}
    lines = [chat(f"line-{n}", f"question {n}" + " [[status 400]]" * (n in refused)) for n in range(900)]
    batch = platform.ended(platform.submit(lines).id)
    assert batch.status == "completed"
    assert counts(batch) == (900, 810, 90)
    output, errors = platform.file(batch.output_file_id), platform.file(batch.error_file_id)
    assert ids(output) == [f"line-{n}" for n in range(900) if n not in refused]
    assert ids(errors) == [f"line-{n}" for n in range(900) if n in refused]
    assert [said(line) for line in output] == [f"question {n}" for n in range(900) if n not in refused]
    assert {line["response"]["status_code"] for line in output} == {200}
    assert {line["response"]["status_code"] for line in errors} == {400}
    assert all(line["error"] is None for line in [*output, *errors])
    assert len({line["id"] for line in [*output, *errors]}) == 900
    usages = [line["response"]["body"]["usage"] for line in output]
    assert batch.usage
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens


def test_a_line_and_a_call_may_name_the_version_and_read_what_they_asked(platform: Platform) -> None:
    lines = [chat("version", "hello", "tiny@v1"), chat("alias", "hello", "tiny@stable"), chat("plain", "hello")]
    batch = platform.ended(platform.submit(lines).id)
    answers = {line["custom_id"]: line["response"]["body"]["model"] for line in platform.file(batch.output_file_id)}
    assert answers == {"version": "tiny@v1", "alias": "tiny@stable", "plain": "tiny"}
    told = platform.http.get(f"/batches/{batch.id}").json()["versions"]
    assert told == {"tiny@v1": ["v1"], "tiny@stable": ["v1"], "tiny": ["v1"]}
    body = {"model": "tiny@v1", "messages": [{"role": "user", "content": "hello"}]}
    answer = platform.http.post("/chat/completions", json=body)
    assert (answer.headers["x-penstock-version"], answer.json()["model"]) == ("v1", "tiny@v1")
    streamed = platform.http.post("/chat/completions", json=body | {"stream": True})
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert {chunk["model"] for chunk in chunks} == {"tiny@v1"}


def test_a_batch_whose_lines_all_fail_is_completed_without_an_output_file(platform: Platform) -> None:
    batch = platform.ended(platform.submit([chat(f"{n}", "no [[status 422]]") for n in range(3)]).id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert counts(batch) == (3, 0, 3)
    assert ids(platform.file(batch.error_file_id)) == ["0", "1", "2"]
    assert batch.usage
    assert batch.usage.total_tokens == 0


def test_submitted_and_waited_for_they_are_no_success(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(jsonl([chat(f"{n}", "no [[status 422]]") for n in range(3)]))
    told = {"PENSTOCK_URL": platform.url, "PENSTOCK_API_KEY": platform.sdk.api_key}
    done = subprocess.run(
        [PENSTOCK, "batches", "submit", file, "--wait"],
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "completed · 0 answered · 3 failed · 0 left" in done.stderr


def test_characters_that_databases_refuse_come_back_as_they_were_answered(platform: Platform) -> None:
    lines = [chat("nul", "é [[nul]]"), chat("half", "\u2028 [[surrogate]]")]
    batch = platform.ended(platform.submit(lines).id)
    assert counts(batch) == (2, 2, 0)
    nul, half = platform.file(batch.output_file_id)
    assert said(nul).startswith("é")
    assert said(nul).endswith("\0")
    assert "\ud800" in said(half)


def test_a_line_may_hold_a_number_that_nobody_can_read_and_its_neighbours_are_answered(platform: Platform) -> None:
    odd = jsonl([chat("odd", "hello", top_k="?", priority=9, service_tier="flex")]).replace(b'"?"', b"1e999")
    batch = platform.ended(platform.submit(jsonl([chat("one", "1")]) + odd + jsonl([chat("two", "2")])).id, 20)
    assert batch.status == "completed"
    assert [said(line) for line in platform.file(batch.output_file_id) if line["custom_id"] != "odd"] == ["1", "2"]


def test_a_line_that_is_turned_away_for_a_moment_is_asked_again(platform: Platform) -> None:
    lines = [chat("busy", "moment [[status 429 times 1 after 0.05]]"), chat("down", "then [[status 503 times 2]]")]
    batch = platform.ended(platform.submit(lines).id)
    assert (batch.status, counts(batch)) == ("completed", (2, 2, 0))


def test_slices_that_only_wait_for_a_slow_line_keep_nobody_from_the_engine(platform: Platform) -> None:
    """One tenant's slices may hold three hands of a lane: four that only wait must not be all that runs."""
    marked = {0, 600, 1_200, 1_800}
    lines = [chat(f"{n}", f"{n}" + " [[hang]]" * (n in marked)) for n in range(3_000)]
    batch = platform.submit(lines)
    rest = len(lines) - len(marked)
    seen = platform.watched(batch.id, lambda seen: counts(seen)[1] >= rest, f"{rest} lines are answered")
    assert seen.status == "in_progress"
    platform.sdk.batches.cancel(batch.id)
    assert counts(platform.ended(batch.id)) == (3_000, rest, len(marked))


def test_a_malformed_file_fails_its_batch_with_every_error_and_its_line(platform: Platform) -> None:
    good = jsonl([chat("one", "hello")]).rstrip(b"\n")
    elsewhere = json.dumps(chat("two", "hello") | {"url": "/v1/embeddings"}).encode()
    nameless = json.dumps({name: value for name, value in chat("", "x").items() if name != "custom_id"}).encode()
    streamed = json.dumps(chat("three", "hello", stream=True)).encode()
    broken = b'{"custom_id": '
    batch = platform.ended(platform.submit(b"\n".join([good, broken, b"", elsewhere, nameless, streamed, good])).id)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert [(error.line, error.code, error.param) for error in batch.errors.data] == [
        (2, "invalid_json_line", None),
        (4, "url_mismatch", "url"),
        (5, "missing_required_parameter", "custom_id"),
        (6, "invalid_request", "body.stream"),
        (7, "duplicate_custom_id", "custom_id"),
    ]
    assert (batch.output_file_id, batch.error_file_id, batch.failed_at is not None) == (None, None, True)


def test_a_model_that_nobody_knows_fails_its_batch(platform: Platform) -> None:
    batch = platform.ended(platform.submit([chat("a", "hello"), chat("b", "hello", model="nobody")]).id)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert [(error.line, error.code) for error in batch.errors.data] == [(2, "model_not_found")]
    there, _, advice = batch.errors.data[0].message.partition("There are: ")[2].partition(" (GET /v1/models). ")
    assert "tiny" in there.split(", ")
    assert advice.startswith("An operator adds one")


def test_a_batch_of_a_known_model_without_a_worker_waits_and_says_why_until_it_is_cancelled(
    platform: Platform,
) -> None:
    add = [PENSTOCK, "models", "add", "ghost", "--data", str(platform.data)]
    subprocess.run(add, env=dict(platform.environment), check=True, capture_output=True)
    id = platform.submit([chat(f"{n}", "boo", model="ghost") for n in range(5)]).id
    batch = platform.watched(id, lambda batch: batch.status == "in_progress", "validated")
    waiting = batch.model_dump()["waiting"]
    assert (waiting["reason"], waiting["models"]) == ("no_worker", ["ghost"])
    platform.sdk.batches.cancel(id)
    batch = platform.ended(id)
    assert (batch.status, batch.output_file_id) == ("cancelled", None)
    assert counts(batch) == (5, 0, 5)
    errors = platform.file(batch.error_file_id)
    assert ids(errors) == ["0", "1", "2", "3", "4"]
    assert codes(errors) == {"batch_cancelled": 5}


def test_a_deadline_that_passes_keeps_what_is_answered_and_expires_the_rest(platform: Platform) -> None:
    lines = [chat(f"{n}", "stuck [[hang]]" if n % 4 == 1 else f"quick {n}") for n in range(40)]
    id = platform.submit(lines).id
    platform.watched(id, lambda batch: counts(batch) == (40, 30, 0), "the quick lines are recorded")
    platform.sql("update batches set deadline = now() - interval '1 second' where id = %s", id)
    batch = platform.ended(id)
    assert batch.status == "expired"
    assert batch.expired_at
    assert counts(batch) == (40, 30, 10)
    assert ids(platform.file(batch.output_file_id)) == [f"{n}" for n in range(40) if n % 4 != 1]
    errors = platform.file(batch.error_file_id)
    assert ids(errors) == [f"{n}" for n in range(40) if n % 4 == 1]
    assert codes(errors) == {"batch_expired": 10}


def test_a_cancel_keeps_what_is_answered_and_the_rest_says_so(platform: Platform) -> None:
    lines = [chat(f"{n}", "long [[sleep 60000]]" if n % 2 else f"short {n}") for n in range(60)]
    id = platform.submit(lines).id
    platform.watched(id, lambda batch: counts(batch) == (60, 30, 0), "the short lines are recorded")
    assert platform.sdk.batches.cancel(id).status == "cancelling"
    batch = platform.ended(id, 20)
    assert batch.status == "cancelled"
    assert counts(batch) == (60, 30, 30)
    output, errors = platform.file(batch.output_file_id), platform.file(batch.error_file_id)
    assert [said(line) for line in output] == [f"short {n}" for n in range(0, 60, 2)]
    assert ids(errors) == [f"{n}" for n in range(1, 60, 2)]
    assert codes(errors) == {"batch_cancelled": 30}


def job(platform: Platform, **asked: Any) -> dict[str, Any]:
    """Create a job and wait for its end in one long poll."""
    made = platform.http.post("/jobs", json=asked).raise_for_status().json()
    found: dict[str, Any] = platform.http.get(f"/jobs/{made['id']}", params={"wait": 30}).raise_for_status().json()
    assert found["status"] == "completed", found
    return found


def test_a_job_of_one_body_brings_its_answer_along(platform: Platform) -> None:
    done = job(platform, body=chat("", "What is a penstock?")["body"])
    assert [said(line) for line in done["results"]] == ["What is a penstock?"]
    assert done["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


def test_a_job_of_several_requests_brings_its_results_in_their_order(platform: Platform) -> None:
    texts = ["slow [[sleep 300]]", "refused [[status 400]]", "quick", "last"]
    done = job(
        platform, model="tiny", requests=[{"body": {"messages": [{"role": "user", "content": t}]}} for t in texts]
    )
    assert ids(done["results"]) == ["request-1", "request-2", "request-3", "request-4"]
    assert [line["response"]["status_code"] for line in done["results"]] == [200, 400, 200, 200]
    assert [said(done["results"][n]) for n in (0, 2, 3)] == [texts[0], "quick", "last"]
    assert done["request_counts"] == {"total": 4, "completed": 3, "failed": 1}


def midway(platform: Platform) -> str:
    """A batch of several slices of which some lines are answered and many are not."""
    id = platform.submit([chat(f"{n}", f"answer {n} [[sleep 600]]") for n in range(1_200)]).id
    platform.watched(id, lambda batch: 0 < counts(batch)[1] < 1_000, "some lines are recorded, not all")
    return id


def each_line_once(platform: Platform, id: str, seconds: float) -> None:
    batch = platform.ended(id, seconds)
    assert (batch.status, counts(batch)) == ("completed", (1_200, 1_200, 0))
    output = platform.file(batch.output_file_id)
    assert ids(output) == [f"{n}" for n in range(1_200)]
    assert [said(line) for line in output] == [f"answer {n} [[sleep 600]]" for n in range(1_200)]
    assert batch.error_file_id is None


def test_a_batch_outlives_the_death_of_its_worker_whose_engine_goes_with_it(platform: Platform) -> None:
    id = midway(platform)
    worker, engine = platform.child("gpu"), platform.engine()
    assert engine
    worker.kill()
    assert all(ended(process, 10) for process in engine)
    each_line_once(platform, id, 90)
    assert platform.child("gpu") != worker
    assert not {(p.pid, p.started_ticks) for p in platform.engine()} & {(p.pid, p.started_ticks) for p in engine}


@pytest.mark.slow
def test_a_batch_outlives_the_death_of_its_engine_alone(platform: Platform) -> None:
    id = midway(platform)
    worker, engine = platform.child("gpu"), platform.engine()
    os.kill(engine[-1].pid, signal.SIGKILL)  # the server itself, not its guard
    assert ended(engine[-1], 10)
    each_line_once(platform, id, 90)
    assert platform.child("gpu") == worker


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_gives_its_work_back_without_a_crash_counted(platform: Platform) -> None:
    id = midway(platform)
    worker, engine = platform.child("gpu"), platform.engine()
    worker.terminate()
    assert all(ended(process, 30) for process in engine)
    assert platform.ask("select sum(crashes) from slices where batch = %s", id) == 0
    each_line_once(platform, id, 90)
    assert platform.child("gpu") != worker
    assert platform.ask("select sum(crashes) from slices where batch = %s", id) == 0


@pytest.mark.skipif(bool(os.environ.get("PENSTOCK_TEST_WITHOUT_REDIS")), reason="Flower listens to Redis")
def test_flower_wants_its_password_and_shows_tasks_that_a_person_can_read(platform: Platform) -> None:
    with httpx.Client(base_url=platform.flower_url, timeout=20, trust_env=False) as anyone:
        assert anyone.get("/").status_code == 401
        assert anyone.get("/api/tasks").status_code == 401
    password = (platform.data / "flower-password").read_text().strip()

    with httpx.Client(
        base_url=platform.flower_url, auth=("penstock", password), timeout=20, trust_env=False
    ) as operator:

        def told(id: str) -> dict[str, dict[str, Any]]:
            """The batch's tasks that succeeded and found something to do, by name."""
            tasks = operator.get("/api/tasks").raise_for_status().json().values()
            did = [task for task in tasks if task["state"] == "SUCCESS" and id in task["result"]]
            mine = {task["name"]: task for task in did if "nothing to" not in task["result"]}
            return mine if len(mine) == 3 else {}

        # A worker that heard nothing for a while may look by itself in the very moment, and then there is no task.
        for _ in range(5):
            id = platform.ended(platform.submit([chat("only", "hello")]).id).id
            with contextlib.suppress(AssertionError):
                tasks = until(lambda id=id: told(id), "Flower shows the three tasks of the batch", 10)
                break
        else:
            pytest.fail("Flower showed the three tasks of none of five batches")
        columns = re.findall(r'<th data-column="(\w+)">', operator.get("/tasks").text)
    assert columns == ["name", "kwargs", "state", "result", "received", "runtime", "worker", "uuid"]
    assert tasks["penstock.validate"]["kwargs"] == str({"batch": id})
    assert f"{id} · 1 lines · 1 slices" in tasks["penstock.validate"]["result"]
    assert tasks["penstock.generate"]["kwargs"] == str({"model": "tiny", "lane": "standard"})
    assert f"{id} · lines 1–1 · 1 answered" in tasks["penstock.generate"]["result"]
    assert f"{id} · completed · 1 answered" in tasks["penstock.assemble"]["result"]
