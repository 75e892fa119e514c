"""Jobs: one request or a few, validated and answered without files."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from api.live import CHAT, arrive, chat, claim_one, completion, error, http, settle_one
from store import as_holder

from penstock.domain.reuse import ReuseSource
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.admin import models
from penstock.service.core.transaction import Database
from penstock.settings import Settings


def post(client: httpx.Client, **job: Any) -> httpx.Response:
    return client.post("/v1/jobs", json=job)


def made(client: httpx.Client, **job: Any) -> dict[str, Any]:
    answer = post(client, **job)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_small_job_is_in_progress_at_once_and_waits_for_its_worker(client: httpx.Client, model: str) -> None:
    job = made(client, model=model, body=chat())
    assert job["id"].startswith("job_")
    assert (job["object"], job["status"], job["model"], job["endpoint"]) == ("job", "in_progress", model, CHAT)
    assert job["request_counts"] == {"total": 1, "completed": 0, "failed": 0}
    assert job["input_file_id"] is None
    seen = client.get(f"/v1/jobs/{job['id']}").json()
    assert seen["results"] is None
    assert (seen["waiting"]["reason"], seen["waiting"]["models"]) == ("no_worker", [model])
    assert client.get("/v1/files").json()["data"] == []


def test_results_come_inline_in_the_order_of_the_requests(
    client: httpx.Client, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    requests = [{"custom_id": "z", "body": chat()}, {"body": chat()}, {"custom_id": "a", "body": chat()}]
    job = made(client, model="tiny", requests=requests, lane="priority", metadata={"k": "v"})

    def answer(number: int, custom_id: str) -> tuple[int, bytes]:
        return (400, b'{"error":{"message":"no"}}') if number == 2 else (200, completion(f"I am {custom_id}\0"))

    settle_one(db, settings, worker, answer)
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert ended["usage"]["total_tokens"] == 16
    assert [line["custom_id"] for line in ended["results"]] == ["z", "request-2", "a"]
    assert [line["response"]["status_code"] for line in ended["results"]] == [200, 400, 200]
    assert ended["results"][2]["response"]["body"]["choices"][0]["message"]["content"] == "I am a\0"
    assert (ended["output_file_id"], ended["error_file_id"], ended["lane"]) == (None, None, "priority")
    assert client.get("/v1/jobs").json()["data"][0]["results"] is None


def test_a_long_poll_answers_as_soon_as_the_job_ends(
    client: httpx.Client, url: str, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    job = made(client, model="tiny", body=chat())["id"]
    answers: list[httpx.Response] = []

    def wait() -> None:
        with http(url) as other:
            answers.append(other.get(f"/v1/jobs/{job}", params={"wait": 20}))

    waiting = threading.Thread(target=wait)
    waiting.start()
    settle_one(db, settings, worker, lambda number, custom_id: (200, completion("hi")))
    waiting.join(20)
    assert answers[0].json()["status"] == "completed"
    assert answers[0].json()["results"][0]["response"]["body"]["choices"][0]["message"]["content"] == "hi"


def test_a_cancelled_job_says_of_each_line_what_became_of_it(client: httpx.Client, model: str) -> None:
    job = made(client, model=model, requests=[{"body": chat()}, {"body": chat()}])["id"]
    assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "cancelling"
    ended = client.get(f"/v1/jobs/{job}").json()
    assert ended["status"] == "cancelled"
    assert [line["error"]["code"] for line in ended["results"]] == ["batch_cancelled"] * 2
    assert ended["request_counts"] == {"total": 2, "completed": 0, "failed": 2}


def test_a_body_may_name_its_own_model(client: httpx.Client, model: str, db: Database) -> None:
    db.run(models.add, "other")
    assert made(client, model=model, body=chat() | {"model": "other"})["model"] == "other"
    assert made(client, body=chat() | {"model": model})["model"] == model


def test_a_body_goes_on_as_the_bytes_that_it_was(client: httpx.Client, db: Database, settings: Settings) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    body = b'{\n "model":"tiny" , "seed": 1.0e0, "n":0.10,\r\n "messages":[ "\\u0000\\n"]}'
    answer = client.post("/v1/jobs", content=b'{"body":' + body + b"}")
    assert answer.status_code == 200, answer.text
    claim = claim_one(db, settings, worker)
    [(number, line)] = plan.unframe(claim.inline or b"")
    assert lines.read(number, line).body == b'{"model":"tiny","seed":1.0e0,"n":0.10,"messages":["\\u0000\\n"]}'


def test_a_large_job_may_skip_bad_requests_and_a_small_one_is_refused_with_them(
    client: httpx.Client, model: str, db: Database
) -> None:
    bad = {"body": chat() | {"stream": True}}
    refused = error(post(client, model=model, requests=[{"body": chat()}, bad], on_invalid="skip"), 400)
    assert refused["param"] == "requests[1].body.stream"
    job = made(client, model=model, requests=[bad, *[{"body": chat("x" * 1_000)}] * 20], on_invalid="skip")
    assert (job["status"], job["on_invalid"]) == ("validating", "skip")
    assert made(client, model=model, body=chat())["on_invalid"] == "fail"


WRONG_JOBS = [
    ({"body": chat()}, "body.model", "missing_required_parameter"),
    ({"model": "tiny"}, "body", "invalid_request"),
    ({"model": "tiny", "body": chat(), "requests": [{"body": chat()}]}, "body", "invalid_request"),
    ({"model": "tiny", "requests": []}, "requests", "invalid_request"),
    ({"model": "tiny", "requests": [{"custom_id": "a"}]}, "requests[0].body", "missing_required_parameter"),
    ({"model": "tiny", "requests": [{"body": 7}]}, "requests[0].body", "invalid_request"),
    ({"model": "tiny", "requests": [{"body": {}, "url": "/"}]}, "requests[0].url", "unknown_parameter"),
    ({"model": "tiny", "body": chat() | {"stream": True}}, "body.stream", "invalid_request"),
    ({"model": "tiny", "body": []}, "body", "invalid_request"),
    ({"model": "tiny", "body": "text"}, "body", "invalid_request"),
    ({"model": "tiny", "requests": {"body": {}}}, "requests", "invalid_request"),
    ({"model": "tiny", "requests": [[]]}, "requests[0]", "invalid_request"),
    ({"model": "tiny", "requests": [{"custom_id": 7, "body": {}}]}, "requests[0].custom_id", "invalid_request"),
    ({"model": "tiny", "body": chat(), "colour": "red"}, "colour", "unknown_parameter"),
    ({"model": "tiny", "body": chat(), "metadata": {"k": "v" * 70_000}}, "metadata", "invalid_request"),
    ({"model": 7, "body": chat()}, "model", "invalid_request"),
    ({"model": "tiny", "body": chat(), "endpoint": "/v1/images"}, "endpoint", "invalid_request"),
    ({"model": "tiny", "body": chat(), "completion_window": "x"}, "completion_window", "invalid_request"),
    ({"model": "", "body": chat()}, "model", "invalid_request"),
    ({"model": "tiny", "requests": [{"custom_id": "x" * 600, "body": {}}]}, "requests[0].custom_id", None),
    ({"model": "tiny", "requests": [{"custom_id": "", "body": {}}]}, "requests[0].custom_id", None),
    (
        {"model": "tiny", "requests": [{"body": {}}, {"custom_id": "request-1", "body": {}}]},
        "requests[1].custom_id",
        "duplicate_custom_id",
    ),
]


def test_what_is_wrong_with_a_job_is_named(client: httpx.Client, model: str, subtests: pytest.Subtests) -> None:
    for job, param, code in WRONG_JOBS:
        with subtests.test(job=repr(job)[:60], param=repr(param)[:60], code=repr(code)[:60]):
            refused = error(post(client, **job), 400)
            assert refused["param"] == param
            assert code in (None, refused["code"])


def test_an_unknown_model_is_404_in_the_post_and_those_that_exist_are_named(client: httpx.Client, model: str) -> None:
    told = error(post(client, model="none", body=chat()), 404)
    assert (told["code"], told["param"]) == ("model_not_found", "model")
    assert told["message"].startswith("The model 'none' does not exist. There are: tiny (GET /v1/models).")
    assert "`penstock models add`" in told["message"]
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_large_job_becomes_a_file_that_is_validated(client: httpx.Client, model: str) -> None:
    requests = [{"custom_id": f"c{n}", "body": chat(f"line\n{n}")} for n in range(101)]
    job = made(client, model=model, requests=requests)
    assert (job["status"], job["object"]) == ("validating", "job")
    lines = client.get(f"/v1/files/{job['input_file_id']}/content").content.splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"c{n}" for n in range(101)]
    first = json.loads(lines[0])
    assert (first["method"], first["url"], first["body"]) == ("POST", CHAT, {"model": model} | chat("line\n0"))
    client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert (ended["status"], ended["results"], ended["output_file_id"]) == ("cancelled", None, None)


LARGE_JOBS = [
    [{"body": chat("x" * 20_000)}],
    [{"body": chat() | {"model": "tiny"}}, {"body": chat() | {"model": "other"}}],
]


def test_a_job_with_many_bytes_or_two_models_is_a_large_one(
    client: httpx.Client, model: str, subtests: pytest.Subtests
) -> None:
    for requests in LARGE_JOBS:
        with subtests.test(requests=repr(requests)[:60]):
            assert made(client, model=model, requests=requests)["status"] == "validating"


def test_duplicates_in_a_large_job_are_refused_in_the_post(client: httpx.Client, model: str) -> None:
    requests = [{"custom_id": "same", "body": chat()} for _ in range(101)]
    assert error(post(client, model=model, requests=requests), 400)["code"] == "duplicate_custom_id"
    assert client.get("/v1/files").json()["data"] == []


def test_more_requests_than_a_job_may_hold_are_413(client: httpx.Client, model: str) -> None:
    assert error(post(client, model=model, requests=[{"body": {}}] * 201), 413)["param"] == "requests"
    hidden = b'{"model":"tiny","requests":[' + b",".join([b'{"b\\u006fdy":{}}'] * 201) + b"]}"
    assert error(client.post("/v1/jobs", content=hidden), 413)["param"] == "requests"


def test_a_job_warns_of_answers_that_are_empty(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    worker = arrive(db, settings, "gpu", model)
    asked = {"model": model, "requests": [{"body": chat()} for _ in range(3)]}
    job = client.post("/v1/jobs", json=asked).json()
    assert job["warnings"] is None
    cut = b'{"choices": [{"finish_reason": "length", "message": {"content": null, "reasoning": "hm"}}]}'
    settle_one(db, settings, worker, lambda number, _: (200, completion("yes") if number == 2 else cut))
    [warning] = client.get(f"/v1/jobs/{job['id']}").json()["warnings"]
    assert (warning["code"], warning["count"], warning["lines"]) == ("empty_answers", 2, [1, 3])
    assert "because max_completion_tokens or max_tokens ran out" in warning["message"]


def test_the_warning_of_a_response_names_its_own_limit(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    worker = arrive(db, settings, "gpu", model)
    asked = {"model": model, "endpoint": "/v1/responses", "body": {"input": "x", "max_output_tokens": 9}}
    job = client.post("/v1/jobs", json=asked).json()["id"]
    settle_one(db, settings, worker, lambda number, _: (200, b'{"status": "incomplete", "output": []}'))
    [warning] = client.get(f"/v1/jobs/{job}").json()["warnings"]
    assert "because max_output_tokens ran out" in warning["message"]


def test_a_job_says_whether_its_equal_lines_share_an_answer(
    client: httpx.Client, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    for said, dedup in (({}, True), ({"dedup": True}, True), ({"dedup": False}, False)):
        made(client, model="tiny", body=chat(), **said)
        claim = claim_one(db, settings, worker)
        assert claim.reuse.dedup is dedup
    assert error(post(client, model="tiny", body=chat(), dedup="maybe"), 400)["param"] == "dedup"


def test_a_job_shows_what_it_was_made_with(client: httpx.Client, model: str) -> None:
    plain = made(client, model=model, body=chat())
    assert (plain["dedup"], plain["plan"], plain["cache"]) == (True, True, None)
    told = made(client, model=model, body=chat(), dedup=False, plan=False, cache={"mode": "refresh"})
    assert (told["dedup"], told["plan"], told["cache"]) == (False, False, {"mode": "refresh", "ttl_seconds": None})
    lasting = made(client, model=model, body=chat(), cache={"mode": "on", "ttl_seconds": 60})
    assert client.get(f"/v1/jobs/{lasting['id']}").json()["cache"] == {"mode": "on", "ttl_seconds": 60}


def test_the_output_tokens_of_reused_answers_are_said_apart(
    client: httpx.Client, db: Database, settings: Settings
) -> None:
    worker = arrive(db, settings, "gpu", "tiny")
    job = made(client, model="tiny", requests=[{"body": chat()}] * 3)
    claim = claim_one(db, settings, worker)
    said = (200, "req", completion("yes"))
    records = [
        output.answered(claim.batch, n, f"request-{n}", *said, reused=ReuseSource.EQUAL if n > 1 else None)
        for n in (1, 2, 3)
    ]
    db.run(as_holder.flush, claim, 0, records, None)
    running = client.get(f"/v1/jobs/{job['id']}").json()
    live = running["usage"]
    db.run(as_holder.settle, claim)
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert ended["usage"] == live
    assert ended["saved"] == running["saved"] == {
        "currency": None, "amount": None,
        "prefix_cache": {"input_tokens": 0, "output_tokens": 0, "amount": None},
        "equal_lines": {"input_tokens": 10, "output_tokens": 6, "amount": None},
        "shared_cache": {"input_tokens": 0, "output_tokens": 0, "amount": None},
    }  # fmt: skip
    assert live["output_tokens_details"] == {"reasoning_tokens": 0, "reused_tokens": 6}
    assert (live["output_tokens"], live["input_tokens"], live["input_tokens_details"]) == (9, 15, {"cached_tokens": 10})
    assert [line["response"].get("cached", False) for line in ended["results"]] == [False, True, True]
