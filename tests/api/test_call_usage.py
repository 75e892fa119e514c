"""Waiting calls are counted for their tenant, at the price of their tokens."""

from __future__ import annotations

import time

import httpx
import pytest
from api import scripted_ingress
from api.live import CHAT, chat, http, serving
from api.scripted_ingress import TOKEN, ScriptedIngress
from pydantic import SecretStr

from penstock.domain.accounts.tokens import Usage
from penstock.formats.output import usage_of
from penstock.service.admin import prices
from penstock.service.core.transaction import Database
from penstock.settings import Settings

SAID = b'"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}'
LAST = b'data: {"object":"chat.completion.chunk","choices":[],%b}\n\ndata: [DONE]\n\n' % SAID


def test_usage_is_read_of_whole_answers_and_of_the_ends_of_streams() -> None:
    used = Usage(10, 8, 4)
    assert usage_of(b'{"choices":[],%b}' % SAID) == used
    assert usage_of(LAST) == used
    response = b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":10,"output_tokens":4}}}\n\n'
    assert usage_of(response) == Usage(10, 0, 4)
    assert usage_of(b'{"usage":null}') == usage_of(b"") == usage_of(b'data: {"usage": ') == Usage()
    assert usage_of(LAST, reused=True) == Usage(10, 10, 4, 0, 4, shared_input_tokens=10, shared_output_tokens=4)


def test_answered_calls_are_in_the_usage_once_the_process_wrote_them(
    db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted_ingress, "ANSWER", b'{"object":"chat.completion","choices":[],%b}' % SAID)
    monkeypatch.setattr(scripted_ingress, "EVENTS", [*scripted_ingress.EVENTS[:-1], LAST])
    settings = settings.model_copy(update={"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0})
    with ScriptedIngress(db, settings):
        db.run(prices.set_price, "tiny", input="1", cached_input="0.1", output="2")
        with serving(settings) as url, http(url) as client:
            for more in ({}, {"stream": True}):
                assert client.post(CHAT, json={"model": "tiny", **chat(), **more}).status_code == 200
            assert client.post("/tokenize", json={"model": "tiny", "prompt": "a"}).status_code == 200
            assert client.post(CHAT, json={"model": "absent", **chat()}).status_code == 404
        with serving(settings) as url, http(url) as client:
            ((one,),) = [bucket["results"] for bucket in _usage(client) if bucket["results"]]
    assert (one["num_model_requests"], one["input_tokens"], one["input_cached_tokens"]) == (2, 20, 16)
    assert (one["output_tokens"], one["batch"], one["model"]) == (8, False, "tiny")
    assert (one["lane"], one["api_key_name"], one["api_key_id"][:4]) == (None, "bootstrap", "key_")
    assert one["cost"] == {"currency": "USD", "tokens": "0.0000216", "gpu": "0", "gpu_seconds": 0.0}


def _usage(client: httpx.Client) -> list[dict]:
    asked = [
        ("start_time", int(time.time()) - 86_400),
        *(("group_by", by) for by in ("batch", "model", "lane", "api_key_id")),
    ]
    return client.get("/v1/usage", params=asked).json()["data"]
