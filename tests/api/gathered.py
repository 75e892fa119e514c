"""What tests of calls to ensembles that gather have in common: an ensemble, what its members say, and a call of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from api.live import CHAT, chat, http
from api.scripted_ingress import TOKEN, ScriptedIngress
from pydantic import SecretStr

from penstock.service.admin import keys, models
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

NAMES = ("one", "two", "three")


def quick(settings: Settings) -> Settings:
    """A quick table, and ingresses that need pulse only once."""
    changed = {"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0, "load_report_seconds": 0.2}
    return settings.model_copy(update=changed)


@contextmanager
def ingresses(db: Database, settings: Settings, **more: Any) -> Iterator[list[ScriptedIngress]]:
    """Three models, each with one worker, and a model that has none."""
    db.run(models.add, "nobody")
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedIngress(db, settings, name, **more)) for name in NAMES]


@contextmanager
def limited(db: Database, url: str, *names: str) -> Iterator[httpx.Client]:
    """A client whose key is for these ensembles only."""
    _, key = db.run(keys.create, "narrow", "narrow", models=frozenset(names))
    with http(url, key) as one:
        yield one


def make(db: Database, kind: str, *asked: str | dict[str, Any], name: str = "mine", **more: Any) -> None:
    """An ensemble: its first version, or its next."""
    listed = [{"model": one} if isinstance(one, str) else one for one in asked]
    db.run(ensembles.add, {"name": name, "kind": kind, "members": listed, **more})


def says(one: ScriptedIngress, text: str, tokens: int = 4, **more: Any) -> None:
    """What a member answers from now on."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **more}
    answer = {"object": "chat.completion", "model": "x", "choices": [choice], "usage": usage}
    one.whole, one.status = json.dumps(answer).encode(), 200


def refuses(one: ScriptedIngress, status: int) -> None:
    one.whole = json.dumps({"error": {"message": "no", "type": "t", "param": None, "code": status}}).encode()
    one.status = status


def ask(client: httpx.Client, text: str = "hello", **more: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": "mine", **chat(text), **more})


def content(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["choices"][0]["message"]["content"]
    return found
