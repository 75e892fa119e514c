"""Batches and jobs for the console's tests, as workers would leave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from api.live import KEY, arrive, chat, claim_one, completion, http, settle_one
from sqlalchemy import text
from store import as_holder

from penstock.domain.reuse import ReuseSource
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.admin import models
from penstock.service.core.transaction import Database, Transaction
from penstock.settings import Settings

OURS = {"sec-fetch-site": "same-origin"}


def by_hand(db: Database, statement: str, **values: Any) -> None:
    """A statement past the rules of moves, which are for those who work on batches."""

    def go(tx: Transaction) -> None:
        tx.conn.execute(text("set local session_replication_role = replica"))
        tx.conn.execute(text(statement), values)

    db.run(go)


def a_job(client: httpx.Client, lines: int = 4, **more: Any) -> str:
    """A job of so many requests; its id."""
    requests = [{"custom_id": f"q{number}", "body": chat(f"ask {number}")} for number in range(1, lines + 1)]
    answer = client.post("/v1/jobs", json={"model": "tiny", "requests": requests, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def worked(db: Database, settings: Settings, failing: tuple[str, ...] = (), words: str = "boo") -> None:
    """A worker answers one slice; some of its lines fail."""
    holder = arrive(db, settings, "gpu", "tiny")

    def answer(number: int, custom_id: str) -> tuple[int, bytes]:
        if custom_id in failing:
            return 400, b'{"error": {"message": "%s", "type": "BadRequestError", "code": 400}}' % words.encode()
        return 200, completion("three")

    settle_one(db, settings, holder, answer)


def begun(db: Database, settings: Settings, answered: int, *, equal: bool = False) -> Callable[[], None]:
    """A worker has recorded so many answers of a slice; what it gives ends the rest of it, which fails.

    `equal`: the last of these answers was an equal line's.
    """
    claim = claim_one(db, settings, arrive(db, settings, "gpu", "tiny"))
    assert claim.inline is not None
    asked = [(number, lines.read(number, line).custom_id) for number, line in plan.unframe(claim.inline)]
    good = [output.answered(claim.batch, *one, 200, "req", completion("x")) for one in asked[:answered]]
    refusal = b'{"error": {"message": "boo", "type": "BadRequestError", "code": 400}}'
    bad = [output.answered(claim.batch, *one, 400, "req", refusal) for one in asked[answered:]]
    if equal:
        said = (200, "req", completion("x"))
        good[-1] = output.answered(claim.batch, *asked[answered - 1], *said, reused=ReuseSource.EQUAL)
    db.run(as_holder.flush, claim, 0, good, None)

    def end() -> None:
        db.run(as_holder.flush, claim, 1, bad, None)
        db.run(as_holder.settle, claim)

    return end


@contextmanager
def logged_in(url: str, key: str = KEY) -> Iterator[httpx.Client]:
    """A browser without scripts."""
    with httpx.Client(base_url=url, headers=OURS, timeout=60, trust_env=False) as client:
        assert client.post("/console/login", data={"key": key, "then": "/jobs"}).status_code == 303
        yield client


__all__ = ["KEY", "a_job", "begun", "by_hand", "http", "logged_in", "models", "worked"]
