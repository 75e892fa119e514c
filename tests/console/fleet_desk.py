"""A fleet for tests of operators' pages: workers' rows with reports, a pool with decisions, work, samples."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx
from api.live import KEY, arrive, http
from sqlalchemy import text

from penstock.domain.calls.ingress import Load
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.profiles import ECHO, VLLM
from penstock.domain.pools.decision import PoolDecision, Unkept, Why
from penstock.domain.work.holder import Holder
from penstock.service.admin import models, samples
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.service.models import aliases, versions
from penstock.service.models.versions import Definition
from penstock.service.pools import decisions, residents
from penstock.settings import Settings

HARM: Final = '<script>alert(1)</script>"><img src=x onerror=alert(1)><b hx-get="/console/lanes">x</b>\u202egnp.exe'
"""What an engine's log or a device's name may hold, and must stay text."""
LARGE: Final = EngineReport(
    slots=256, most_lines=224, calls=9, lines={"priority": 12, "standard": 90, "flex": 41}, waiting={"calls": 0,
    "flex": 310}, kv_usage=0.93, preemptions=4, prefix_hit_rate=0.37, input_tokens_per_second=5210.0,
    output_tokens_per_second=1830.5, ttft=(0,) * 22 + (40, 6) + (0,) * 26,
)  # fmt: skip
SMALL: Final = EngineReport(slots=12, most_lines=8, calls=1, lines={"standard": 3}, waiting={})
_BACK: Final = text("""
    update samples set at = at - make_interval(secs => :seconds) where at = (select max(at) from samples)""")


@contextmanager
def operating(url: str, key: str = KEY) -> Iterator[httpx.Client]:
    """Logged in; its requests are those of the console's own pages."""
    with httpx.Client(base_url=url, headers={"sec-fetch-site": "same-origin"}, timeout=30) as client:
        assert client.post("/console/login", data={"key": key, "then": ""}).status_code == 303
        yield client


class Fleet:
    """Who works, by the tests' own hands."""

    def __init__(self, db: Database, settings: Settings, url: str) -> None:
        self.db, self.settings = db, settings
        for model in ("chat", "sql"):
            db.run(versions.add, model, Definition(f"/models/{model}", "vllm"))
        db.run(models.promise, "chat", ttft_p95_ms=200, itl_p95_ms=None)
        self.chat = arrive(db, settings, "gpu", "chat", VLLM)
        self.pulse(LARGE)
        self.small = arrive(db, settings, "gpu", "tiny", ECHO)
        db.run(ingresses.pulse, self.small, Load(True, 1, 3, 8, "all", 50.0, SMALL))
        self.troubled = arrive(db, settings, "gpu", "broken", VLLM)
        db.run(work.mark, self.troubled, "starting", settings, EngineTrouble(2, f"ValueError: {HARM}"))
        self.io = arrive(db, settings, "io")
        self.keeper = arrive(db, settings, "keeper")
        with http(url) as api:
            lines = [{"body": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 400}}] * 40
            for model in ("chat", "chat", "sql"):
                made = api.post("/v1/jobs", json={"model": model, "requests": lines})
                assert made.status_code == 200, made.text
            long = [{"body": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 16_000}}] * 40
            made = api.post("/v1/jobs", json={"model": "tiny", "requests": long, "completion_window": "1h"})
            assert made.status_code == 200, made.text
            self.late = made.json()["id"]
            made = api.post(
                "/v1/pools",
                json={"name": "gpus", "device": "l4", "versions": [{"version": "chat"}, {"version": "sql@v1"}]},
            )
            assert made.status_code == 200, made.text
        self.host = Holder(uuid.uuid4(), "pool", None, "machine", 7, "gpus")
        db.run(work.register, self.host, "ready", 0)
        db.run(residents.put, self.host.id, "chat", "awake", self.chat.id)
        db.run(residents.put, self.host.id, "sql", "asleep", None)
        self.decide()

    def pulse(self, report: EngineReport) -> None:
        """The chat worker reports its load."""
        lines = sum(report.lines.values())
        self.db.run(ingresses.pulse, self.chat, Load(True, report.calls, lines, 150, "kv", 640.0, report))

    def decide(self) -> None:
        """The pool switches: once done, once failed, once still going on."""
        late = (Unkept("sql", "standard", 3_600.0, 4_000.0),)
        for why, state in ((Why.QUANTUM, "done"), (Why.BOUND, "failed"), (Why.CALL, None)):
            decision = PoolDecision(why, "chat", "sql", {"chat": 0.4, "sql": 2.0}, 20.0, late if state else ())
            id = self.db.run(decisions.begin, "gpus", self.host.id, decision, "restart", self.settings)
            for step in ("waking", "probing", state) if state == "done" else (state,) if state else ():
                if step == "waking" or step == "probing":
                    self.db.run(decisions.move, id, step)
                else:
                    self.db.run(decisions.end, id, step, 41.5, None if step == "done" else HARM)

    def sample(self, ticks: int) -> None:
        """So many samples, the last one now."""
        for number in range(ticks):
            lines = {"standard": 20 + number % 60, "flex": 41}
            ttft = (0,) * (18 + number % 7) + (40, 6) + (0,) * (30 - number % 7)
            self.pulse(EngineReport(**vars(LARGE) | {"lines": lines, "ttft": ttft, "calls": number % 9}))
            self.db.run(samples.take, self.settings)
            back = {"seconds": 10 * (ticks - 1 - number)}
            self.db.run(lambda tx, back=back: tx.conn.execute(_BACK, back))
        self.pulse(LARGE)

    def second_version(self) -> None:
        """A second version of chat, which the alias stands for in part."""
        self.db.run(versions.add, "chat", Definition("/models/chat-b", "vllm", ("--max-model-len=4096",)))
        for number, share in ((1, 100), (2, 10)):
            self.db.run(aliases.promote, "chat", number, "stable", share)
