"""The ingress: what a gpu worker needs to take waiting calls beside its batch work, from `with` to its end.

    call server    waiting calls come in
    budget loop    keeps what they were promised, and the KV cache from overflowing
    load report    routers hear how loaded the worker is, and estimates how fast it works

Without a token there is no ingress; the others are there all the same.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress

import structlog

from penstock.domain.api_errors import Unavailable
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
    """Call server, budget loop and load report of one worker."""

    def __init__(self, db: Database, holder: Holder, engine: EngineContext, meter: Meter) -> None:
        self._db = db
        self._holder = holder
        self._engine = engine
        self._meter = meter
        self._latencies = Latencies()
        load = engine.supervisor.launch.profile.load
        self._budget_loop = BudgetLoop(
            engine.gate,
            engine.client,
            self._latencies,
            engine.settings,
            pace=engine.pace,
            load=load,
            backpressure=engine.backpressure,
        )
        self._ingress: CallServer | None = None
        self._load_report = LoadReport(db, holder, self._load, self._budget_loop, engine.settings.load_report_seconds)
        self._stack = ExitStack()

    def __enter__(self) -> WorkerIngress:
        engine = self._engine
        if not engine.settings.ingress_secret:
            log.warning("no_ingress", reason="PENSTOCK_INGRESS_TOKEN is not set: this worker takes no waiting calls")
        else:
            metrics = IngressMetrics(engine.gate, self._latencies, self._budget_loop)
            ingress = CallServer(engine, self._holder.id, metrics, self._load_report.at_once)
            self._ingress = self._stack.enter_context(engine.loop.living(ingress.opened()))
        self._stack.callback(engine.loop.run(self._budget_loop.run()).cancel)
        self._stack.enter_context(self._load_report)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def holds(self) -> bool:
        """Whether any waiting call is inside."""
        return self._ingress is not None and self._ingress.holds

    def drain(self) -> None:
        """The worker ends: no new calls."""
        if self._ingress is not None:
            self._ingress.drain()
        self._load_report.at_once()

    def rest(self, drained: bool) -> None:
        """An operator's order: no new calls, or calls again; routers are told before this returns, if they can be."""
        if self._ingress is not None:
            self._ingress.rest(drained)
        with suppress(Unavailable):
            self._load_report.once()

    def restart(self, begins: bool) -> None:
        """The engine is about to be restarted: no new calls until that is over, and a grace for those inside."""
        if self._ingress is not None:
            self._ingress.restart(begins)
        self._load_report.at_once()

    def announce(self, queue: str | None = None) -> None:
        """Say where calls may come in, and for what: its version's queue, and the adapters that its engine lists.

        Without a queue it is the model's plain name.
        """
        if self._ingress is None:
            return
        launch = self._engine.supervisor.launch
        queue = queue or launch.model
        names = dict.fromkeys([queue, *probe.names(launch.socket, timeout_seconds=5.0)])
        if queue != launch.model:
            names.pop(launch.model, None)  # which version a plain name stands for is the router's to say
        cache = self._engine.answer_cache
        revision = cache.revision if cache else ""
        settings, url = self._engine.settings, self._ingress.url
        self._db.run(ingresses.announce, self._holder, url, list(names), launch.engine_slots, settings, revision)

    def _load(self) -> Load:
        gate, ingress = self._engine.gate, self._ingress
        return Load(
            open=ingress is not None and ingress.is_open,
            calls=0 if ingress is None else ingress.calls,
            lines=gate.lines,
            budget=gate.budget,
            reason=self._budget_loop.reason,
            tokens_per_second=self._meter.tokens_per_second(gate.lines_busy_seconds),
            engine=self._budget_loop.report(),
        )
