"""What tests of calls to ensembles that gather have in common: an ensemble, what its members say, and a call of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
from api.live import CHAT, chat
from api.scripted_ingress import ScriptedIngress

from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles


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
