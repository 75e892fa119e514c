"""The reception: what a gpu worker needs to take waiting calls beside its batch work, from `with` to its end.

    door        waiting calls come in
    governor    keeps what they were promised, and the KV cache from overflowing
    pulse       routers hear how loaded the worker is, and forecasts how fast it works

Without a token there is no door; the others are there all the same.
"""

from __future__ import annotations

from contextlib import ExitStack

import structlog

from penstock.domain.calls.ingress import Load
from penstock.domain.work.holder import Holder
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock_worker.budget.budget_loop import BudgetLoop
from penstock_worker.budget.latency import Latencies
from penstock_worker.budget.meter import Meter
from penstock_worker.engine.process import probe
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.call_server import CallServer
from penstock_worker.ingress.ingress_metrics import IngressMetrics
from penstock_worker.ingress.load_report import LoadReport

log = structlog.get_logger()


class WorkerIngress:
    """Door, governor and pulse of one worker."""

    def __init__(self, db: Database, holder: Holder, engine: EngineContext, meter: Meter) -> None:
        self._db = db
        self._holder = holder
        self._engine = engine
        self._meter = meter
        self._latencies = Latencies()
        self._governor = BudgetLoop(engine.gate, engine.client, self._latencies, engine.settings, pace=engine.pace)
        self._door: CallServer | None = None
        self._pulse = LoadReport(db, holder, self._load, self._governor, engine.settings.pulse_seconds)
        self._stack = ExitStack()

    def __enter__(self) -> WorkerIngress:
        engine = self._engine
        token = engine.settings.door_token
        if token is None or not token.get_secret_value():
            log.warning("no_door", reason="PENSTOCK_DOOR_TOKEN is not set: this worker takes no waiting calls")
        else:
            metrics = IngressMetrics(engine.gate, self._latencies, self._governor)
            door = CallServer(engine, self._holder.id, metrics, self._pulse.at_once)
            self._door = self._stack.enter_context(engine.loop.living(door.opened()))
        self._stack.callback(engine.loop.run(self._governor.run()).cancel)
        self._stack.enter_context(self._pulse)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def holds(self) -> bool:
        """Whether any waiting call is inside."""
        return self._door is not None and self._door.holds

    def drain(self) -> None:
        """The worker ends: no new calls."""
        if self._door is not None:
            self._door.drain()
        self._pulse.at_once()

    def announce(self) -> None:
        """Say where calls may come in, and for which names: the model, and the adapters that its engine lists."""
        if self._door is None:
            return
        launch = self._engine.supervisor.launch
        names = dict.fromkeys([launch.model, *probe.names(launch.socket, timeout_seconds=5.0)])
        cache = self._engine.answer_cache
        revision = cache.revision if cache else ""
        settings, url = self._engine.settings, self._door.url
        self._db.run(ingresses.announce, self._holder, url, list(names), launch.engine_slots, settings, revision)

    def _load(self) -> Load:
        gate, door = self._engine.gate, self._door
        return Load(
            open=door is not None and door.is_open,
            calls=0 if door is None else door.calls,
            lines=gate.lines,
            budget=gate.budget,
            reason=self._governor.reason,
            tokens_per_second=self._meter.tokens_per_second(gate.lines_busy_seconds),
        )
