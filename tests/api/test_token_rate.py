"""`tokens_per_minute` over HTTP: paid by the body's size at the start, by the engine's count at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api import scripted_ingress
from api.live import CHAT, chat, error, http
from api.scripted_ingress import TOKEN, ScriptedIngress
from e2e.live import until
from pydantic import SecretStr

from penstock.service.admin import keys, limits
from penstock.service.core.transaction import Database
from penstock.settings import Settings

PER_MINUTE = 600
LONG = "word " * 300
"""As a body some 400 tokens, at four bytes each."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nothing is remembered, and an ingress needs to report once only."""
    return settings.model_copy(
        update={"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0, "key_cache_seconds": 0.0}
    )


@pytest.fixture
def ingress(db: Database, settings: Settings) -> Iterator[ScriptedIngress]:
    with ScriptedIngress(db, settings) as one:
        yield one


@pytest.fixture
def api(ingress: ScriptedIngress, client: httpx.Client, db: Database) -> httpx.Client:
    """A client whose tenant has a rate of tokens."""
    db.run(limits.change, "default", {"tokens_per_minute": PER_MINUTE})
    return client


def said(input_tokens: int, output_tokens: int) -> bytes:
    """An answer that took so much."""
    usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d}' % (input_tokens, output_tokens)
    return b'{"object":"chat.completion","choices":[],%b}' % usage


def ask(client: httpx.Client, text: str = "hello", **more: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": "tiny", **chat(text), **more})


def used(client: httpx.Client) -> int:
    """What `GET /v1/limits` says of it; ten a second flow back meanwhile."""
    found = client.get("/v1/limits").raise_for_status().json()["data"]
    return int(next(one["used"] for one in found if one["name"] == "tokens_per_minute"))


def test_an_answer_shorter_than_estimated_gives_the_rest_back(api: httpx.Client, ingress: ScriptedIngress) -> None:
    ingress.whole = said(10, 4)
    for _ in range(10):  # ten estimates are six times what there is in a minute
        answer = ask(api, LONG)
        assert answer.status_code == 200
    assert used(api) <= 140, "ten times 14, less what flowed back"
    assert answer.headers["x-ratelimit-limit-tokens"] == f"{PER_MINUTE}"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) < PER_MINUTE


def test_an_answer_longer_than_estimated_is_paid_and_the_next_call_is_refused_until_there_is_enough(
    api: httpx.Client, ingress: ScriptedIngress
) -> None:
    ingress.whole = said(300, 300)
    assert ask(api).status_code == 200
    until(lambda: used(api) > 500, "it is paid")
    refused = ask(api, LONG[:150])
    found = error(refused, 429)
    assert (found["type"], found["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert f"tokens_per_minute of your tenant is {PER_MINUTE}" in found["message"]
    assert len(ingress.asked) == 1, "no worker heard of it"
    seconds = int(refused.headers["retry-after"])
    assert 1 <= seconds <= 8
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 70
    assert api.get("/v1/models").status_code == 200, "only waiting calls pay tokens"
    time.sleep(seconds)
    assert ask(api, LONG[:150]).status_code == 200


def test_a_debt_is_paid_by_who_made_it_alone(
    api: httpx.Client, ingress: ScriptedIngress, url: str, db: Database
) -> None:
    ingress.whole = said(1_000, 2_000)
    assert ask(api).status_code == 200
    until(lambda: used(api) >= PER_MINUTE, "it is paid")
    refused = ask(api)
    assert error(refused, 429)
    assert 200 <= int(refused.headers["retry-after"]) <= 245, "2,400 owed, ten a second"
    with http(url, db.run(keys.create, "neighbour", "test")[1]) as neighbour:
        assert ask(neighbour, LONG).status_code == 200


def test_a_body_that_no_minute_holds_is_refused_for_good(api: httpx.Client, ingress: ScriptedIngress) -> None:
    refused = ask(api, LONG * 3)
    assert "tokens_per_minute is 600" in error(refused, 429)["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert not ingress.asked
    assert used(api) == 0


def test_a_call_that_gets_no_answer_pays_nothing(api: httpx.Client, ingress: ScriptedIngress, url: str) -> None:
    ingress.status = 400
    assert ask(api, LONG).status_code == 400
    ingress.status, ingress.usual = 200, "wait"
    with http(url) as leaving, pytest.raises(httpx.ReadTimeout):
        leaving.post(CHAT, json={"model": "tiny", **chat(LONG)}, timeout=0.5)
    until(lambda: ingress.left == 1, "it left")
    until(lambda: used(api) == 0, "all came back")
    ingress.usual = "answer"
    assert api.post("/tokenize", json={"model": "tiny", "prompt": LONG}).status_code == 200
    assert used(api) == 0, "no model was asked"


def test_a_stream_pays_what_its_last_event_says(
    api: httpx.Client, ingress: ScriptedIngress, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = b"data: %b\n\ndata: [DONE]\n\n" % said(100, 100)
    monkeypatch.setattr(scripted_ingress, "EVENTS", [*scripted_ingress.EVENTS[:-1], last])
    ingress.usual = "stream"
    assert b"[DONE]" in ask(api, LONG, stream=True).content
    until(lambda: 150 < used(api) <= 200, "200 less what flowed back")


def test_a_key_has_a_rate_within_its_tenants(
    api: httpx.Client, ingress: ScriptedIngress, url: str, db: Database
) -> None:
    ingress.whole = said(10, 10)
    id, key = db.run(keys.create, "default", "test")
    db.run(limits.change, "default", {"tokens_per_minute": 100}, id)
    with http(url, key) as small:
        assert ask(small).status_code == 200
        assert "tokens_per_minute is 100" in error(ask(small, LONG), 429)["message"]
    assert used(api) <= 20, "what its key was refused, the tenant did not pay"
    assert ask(api, LONG).status_code == 200
