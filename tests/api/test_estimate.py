"""Estimates: tokens by the engine's tokenizer or by bytes, time behind the backlog, before anything is made."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from api.live import CHAT, arrive, chat, completion, error, settle_one, upload
from api.scripted_ingress import TOKEN, ScriptedIngress, serves
from pydantic import SecretStr
from sqlalchemy import text

from penstock.domain.calls.ingress import Load
from penstock.domain.engines.profile import EngineLack
from penstock.domain.engines.profiles import ECHO
from penstock.formats import input as lines
from penstock.service.admin import models, prices
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.settings.concern import MIB


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Ingresses that need to pulse only once, and larger files than others have."""
    return settings.model_copy(
        update={
            "ingress_token": SecretStr(TOKEN),
            "ingress_gone_seconds": 600.0,
            "load_report_seconds": 0.2,
            "max_file_bytes": 64 * MIB,
            "max_line_bytes": MIB,
        }
    )


def content(count: int, **body: Any) -> bytes:
    asked = {"model": "tiny", **chat("hello " * 10), **body}
    return b"".join(lines.write(f"q{n:05}", CHAT, asked) + b"\n" for n in range(count))


def estimate(client: httpx.Client, file: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/batches/estimate", json={"input_file_id": file, "endpoint": CHAT} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def learn(db: Database, **facts: float) -> None:
    """What settled slices would have taught."""
    values = ", ".join(f"{name} = {value}" for name, value in facts.items())
    with db.engine.begin() as conn:
        conn.execute(text(f"update models set measured_at = now(), {values}"))


def test_lines_that_name_no_model_are_those_of_the_one_that_they_get(
    client: httpx.Client, model: str, db: Database
) -> None:
    file = upload(client, b"".join(lines.write(f"q{n}", CHAT, chat("hello")) + b"\n" for n in range(9)))["id"]
    assert [one["model"] for one in estimate(client, file)["models"]] == [model]
    db.run(models.add, "other")
    assert estimate(client, file)["based_on"]["bad_lines"] == 9
    assert [one["model"] for one in estimate(client, file, model="other")["models"]] == ["other"]


def test_without_any_measurement_it_is_bytes_and_limits_and_no_time(client: httpx.Client, model: str) -> None:
    seen = estimate(client, upload(client, content(50))["id"])
    body = len(json.dumps({"model": "tiny", **chat("hello " * 10)}, separators=(",", ":")))
    assert seen["lines"] == {"count": 50, "exact": True, "low": 50, "high": 50}
    assert seen["input_tokens"]["expected"] == pytest.approx(50 * body / 4, rel=0.3)
    assert seen["input_tokens"]["low"] < seen["input_tokens"]["expected"] < seen["input_tokens"]["high"]
    assert seen["output_tokens"] == {"low": 50, "expected": 400, "high": 400}
    assert (seen["seconds"], seen["reason"], seen["meets_deadline"]) == (None, "no_worker", None)
    assert (seen["based_on"]["input"], seen["based_on"]["output"]) == ("assumed", "limits")
    assert client.get("/v1/batches").json()["data"] == []


def test_measured_facts_and_a_measured_worker_give_tokens_and_time(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    data = content(300)
    file = upload(client, data)["id"]
    learn(db, bytes_per_token=5.0, output_tokens=6.0)
    holder = arrive(db, settings, "gpu", model)
    assert estimate(client, file)["reason"] == "not_measured"
    load = Load(open=False, calls=0, lines=0, budget=8, reason="", tokens_per_second=1_000.0)
    db.run(ingresses.pulse, holder, load)
    seen = estimate(client, file)
    assert (seen["lines"]["count"], seen["lines"]["exact"]) == (300, True)
    assert seen["input_tokens"]["expected"] == pytest.approx(len(data) / 5, rel=0.01)
    assert seen["output_tokens"]["expected"] == pytest.approx(300 * 6, rel=0.01)
    assert seen["output_tokens"]["high"] == pytest.approx(300 * 8, rel=0.01)
    assert (seen["based_on"]["input"], seen["based_on"]["output"]) == ("measured", "measured")
    tokens = seen["input_tokens"]["expected"] + seen["output_tokens"]["expected"]
    assert seen["seconds"]["expected"] == pytest.approx(tokens / 1_000 + settings.flush_seconds, abs=0.2)
    assert seen["meets_deadline"] is True
    asked = {"model": model, "requests": [{"body": chat() | {"max_tokens": 5_000}} for _ in range(9)]}
    assert client.post("/v1/jobs", json=asked | {"lane": "priority"}).status_code == 200
    behind = estimate(client, file, lane="flex")["seconds"]
    assert behind["expected"] > seen["seconds"]["expected"] + 1
    assert estimate(client, file, completion_window="1m", lane="priority")["meets_deadline"] is True


def test_an_engine_without_a_tokenizer_is_not_asked_and_bytes_count(
    db: Database, settings: Settings, client: httpx.Client
) -> None:
    with (
        ScriptedIngress(db, settings, engine=ECHO.without(EngineLack.TOKENIZER)) as ingress,
        ScriptedIngress(db, settings, model="other", engine=ECHO) as other,
    ):
        other.whole = b'{"count": 17, "max_model_len": 512, "tokens": []}'
        named = upload(client, content(9, model="other"))["id"]
        serves(lambda: estimate(client, named)["based_on"]["input"] == "tokenizer")  # the API's table has both
        seen = estimate(client, upload(client, content(9))["id"])
        assert (seen["based_on"]["input"], ingress.asked) == ("assumed", [])


def test_the_engines_tokenizer_counts_the_sample(db: Database, settings: Settings, client: httpx.Client) -> None:
    with ScriptedIngress(db, settings) as ingress:
        ingress.whole = b'{"count": 17, "max_model_len": 512, "tokens": []}'
        file = upload(client, content(40))["id"]
        serves(lambda: estimate(client, file)["based_on"]["input"] == "tokenizer")  # the API's table has the ingress
        seen = estimate(client, file)
        assert seen["input_tokens"] == {"low": 680, "expected": 680, "high": 680}
        assert seen["based_on"]["input"] == "tokenizer"
        assert {endpoint for endpoint, _, _ in ingress.asked} == {"/tokenize"}
        assert set(json.loads(ingress.asked[0][2])) == {"model", "messages"}
        ingress.asked.clear()
        answer = client.post("/v1/batches/estimate", json={"model": "tiny", "requests": [{"body": chat()}] * 3})
        assert answer.json()["input_tokens"]["expected"] == 51
        assert len(ingress.asked) == 3, "custom_ids differ, so the lines do"
        ingress.status = 500
        assert estimate(client, upload(client, content(40))["id"])["based_on"]["input"] == "assumed"


def test_a_priced_model_has_a_cost_before_and_an_unpriced_one_none(
    client: httpx.Client, db: Database, model: str
) -> None:
    file = upload(client, content(100, ignore_eos=True, max_tokens=50))["id"]
    assert estimate(client, file)["cost"] is None
    db.run(prices.set_price, model, input="0.20", cached_input=None, output="0.60", gpu_second=None, currency=None,
           valid_from=None)  # fmt: skip
    seen = estimate(client, file)
    for name in ("low", "expected", "high"):
        wanted = seen["input_tokens"][name] * 0.20e-6 + 100 * 50 * 0.60e-6
        assert float(seen["cost"]["tokens"][name]) == pytest.approx(wanted, rel=1e-3)
    assert (seen["cost"]["currency"], seen["cost"]["gpu"]) == ("USD", None)


def test_the_gpus_time_is_priced_once_a_token_is_measured(
    client: httpx.Client, db: Database, settings: Settings, model: str
) -> None:
    db.run(prices.set_price, model, gpu_second="0.50")
    worker = arrive(db, settings, "gpu", model)
    assert client.post("/v1/jobs", json={"model": model, "body": chat()}).status_code == 200
    settle_one(db, settings, worker, lambda n, _: (200, completion("yes")))  # of 8 tokens
    with db.engine.begin() as conn:
        conn.execute(text("update slices set gpu_microseconds = 8000"))
    seen = estimate(client, upload(client, content(100, ignore_eos=True, max_tokens=50))["id"])
    tokens = seen["input_tokens"]["expected"] + seen["output_tokens"]["expected"]
    assert float(seen["cost"]["gpu"]["expected"]) == pytest.approx(tokens * 0.001 * 0.50, rel=1e-3)


def test_what_lines_say_of_their_answers_is_heard(client: httpx.Client, model: str) -> None:
    file = upload(client, content(10, ignore_eos=True, max_tokens=30, n=2))["id"]
    assert estimate(client, file)["output_tokens"] == {"low": 600, "expected": 600, "high": 600}


@pytest.mark.parametrize("count", [10, 100])
def test_lines_of_any_length_count(client: httpx.Client, db: Database, model: str, count: int) -> None:
    db.run(models.add, "other")
    asked = {"model": "other", **chat("hello " * 30_000), "max_tokens": 7}
    long = b"".join(lines.write(f"long{n}", CHAT, asked) + b"\n" for n in range(count))
    alone = estimate(client, upload(client, long)["id"])
    assert alone["based_on"]["bad_lines"] == 0
    assert alone["lines"]["count"] == pytest.approx(count, abs=1)
    assert alone["input_tokens"]["expected"] == pytest.approx(len(long) / 4, rel=0.01)
    assert alone["output_tokens"]["expected"] == pytest.approx(7 * count, rel=0.01)
    assert alone["based_on"]["input"] == "assumed"
    beside = estimate(client, upload(client, content(20_000) + long)["id"])
    parts = {one["model"]: one for one in beside["models"]}
    assert parts["other"]["input_tokens"]["expected"] == pytest.approx(len(long) / 4, rel=0.2)
    assert parts["tiny"]["lines"]["expected"] == pytest.approx(20_000, rel=0.1)


def test_each_prompt_and_each_choice_of_a_line_has_an_answer(client: httpx.Client, model: str) -> None:
    asked = {"model": "tiny", "prompt": ["a", "b", "c"], "best_of": 2, "ignore_eos": True, "max_tokens": 10}
    file = upload(client, lines.write("a", "/v1/completions", asked))["id"]
    assert estimate(client, file, endpoint="/v1/completions")["output_tokens"]["expected"] == 60
    many = upload(client, content(1, n=500, ignore_eos=True, max_tokens=10))["id"]
    assert estimate(client, many)["output_tokens"]["expected"] == 5_000


def test_a_line_that_no_batch_takes_is_a_bad_one(client: httpx.Client, settings: Settings, model: str) -> None:
    file = upload(client, content(3) + b"x" * (settings.max_line_bytes + 1))["id"]
    seen = estimate(client, file)
    assert (seen["lines"]["count"], seen["based_on"]["bad_lines"]) == (4, 1)
    assert "longer than" in seen["based_on"]["first_error"]["message"]


def test_bad_lines_are_seen_before_the_batch_is_made(client: httpx.Client, model: str) -> None:
    file = upload(client, content(5) + b"nonsense\n\n" + content(1, model="nobody"))["id"]
    seen = estimate(client, file)
    assert (seen["lines"]["count"], seen["based_on"]["bad_lines"]) == (7, 2)
    assert seen["based_on"]["first_error"]["code"] == "invalid_json_line"
    assert [one["model"] for one in seen["models"]] == ["tiny"]


def test_what_can_not_be_a_batch_is_refused(client: httpx.Client, stranger: httpx.Client, model: str) -> None:
    file = upload(client, content(2))["id"]
    for asked, param in (
        ({"input_file_id": "file-none", "endpoint": CHAT}, "input_file_id"),
        ({"input_file_id": file, "endpoint": "/v1/odd"}, "endpoint"),
        ({"input_file_id": file, "endpoint": CHAT, "completion_window": "soon"}, "completion_window"),
        ({"input_file_id": file, "endpoint": CHAT, "colour": "red"}, "colour"),
        ({"model": "tiny"}, "body"),
    ):
        assert error(client.post("/v1/batches/estimate", json=asked), 400)["param"] == param
    refused = stranger.post("/v1/batches/estimate", json={"input_file_id": file, "endpoint": CHAT})
    assert error(refused, 400)["param"] == "input_file_id"
