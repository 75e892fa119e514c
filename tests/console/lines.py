"""Lines of batches for tests of pages: what workers would have answered, and what an attacker would put into it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import msgspec
from service.desk import Desk, request
from store.world import World

from penstock.domain.accounts.access import Role
from penstock.service.admin import keys
from penstock.settings import Settings

HOSTILE = "<script>x()</script>\"><img src=x onerror=x()><b hx-get='/v1/files'>\u202egnp.exe\u0007"
REFUSED = msgspec.json.encode({"error": {"message": f"too long {HOSTILE}", "type": "BadRequestError", "code": 400}})
OTHER = b'{"error":{"message":"no such tool","type":"BadRequestError","code":"tool_not_found"}}'


def answer(text: str, reason: str = "stop") -> bytes:
    """What an engine answers to a chat request."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return msgspec.json.encode({"choices": [{"message": message, "finish_reason": reason}], "usage": usage})


def asked(*custom_ids: str) -> bytes:
    """A file with a request for each."""
    return b"\n".join(request(one, messages=None) for one in custom_ids)


@contextmanager
def at_desk(settings: Settings, slice_lines: int = 100) -> Iterator[Desk]:
    """Hands that do what workers would; the tenant is `acme`."""
    world = World(settings.database_url, settings.model_copy(update={"slice_lines": slice_lines}))
    yield Desk(world)
    # A browser's driver has a loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(world.close).result()


def key_of(desk: Desk, tenant: str = "acme", role: Role = Role.TENANT) -> str:
    """A key of the tenant."""
    return desk.world.db.run(keys.create, tenant, "pages", role)[1]


@contextmanager
def reader(url: str, key: str) -> Iterator[httpx.Client]:
    """Somebody who is logged in, without a browser."""
    with httpx.Client(base_url=url, headers={"sec-fetch-site": "same-origin"}, timeout=30) as client:
        assert client.post("/console/login", data={"key": key, "then": "/jobs"}).status_code == 303
        yield client


def is_inert(page: str) -> bool:
    """Whether nothing of HOSTILE became markup, and its odd letters are seen."""
    evil = ("<script>x", "<img src=x", "<b hx-get", "\u202e", "\u0007")
    return "x()" in page and not any(one in page for one in evil)
