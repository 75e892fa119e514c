"""Worker processes: what each is made of, in the order in which it is set up and torn down."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TypeVar

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.address import networks, ports
from penstock.domain.api_errors import Conflict, Unavailable
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.work.hint import ASSEMBLE_QUEUE, DELIVER_QUEUE, EVALUATE_QUEUE, FOLD_QUEUE, VALIDATE_QUEUE
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES, SLICE_PLACES, SLICE_SLOTS, generate_queue, model_slug
from penstock.model_source.definition import defined_here
from penstock.model_source.look import look
from penstock.model_source.removal import mark
from penstock.service.calls.reuse import bounds
from penstock.service.core.transaction import AsyncDatabase, Database
from penstock.service.models import adapters, versions
from penstock.settings import Settings, connections
from penstock.settings.servers import ServerSettings
from penstock.store.engine import async_engine, sync_engine
from penstock.wire.cache import Cache
from penstock.wire.hints import Hinter
from penstock.wire.outbound import Outbound
from penstock_worker.admission.gate import Gate
from penstock_worker.admission.refill import Refill
from penstock_worker.answer_cache import AnswerCache
from penstock_worker.budget.meter import Meter
from penstock_worker.budget.pace import Pace
from penstock_worker.engine import device, kind, revision
from penstock_worker.engine.adapters.adapter_loader import AdapterLoader
from penstock_worker.engine.adapters.adapter_residency import AdapterResidency
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.download_news import telling
from penstock_worker.engine.process.supervisor import EngineState, Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.ingress import WorkerIngress
from penstock_worker.io.batch_tasks import BatchTasks
from penstock_worker.io.eval_tasks import EvalTasks
from penstock_worker.io.fold_tasks import FoldTasks
from penstock_worker.io.webhook_sender import WebhookSender
from penstock_worker.pool import host_place, member_launch
from penstock_worker.pool.host_loop import HostLoop
from penstock_worker.pool.member_set import MemberSet
from penstock_worker.pool.pool_rows import PoolRows
from penstock_worker.pool.switching import HostEnds, Switching
from penstock_worker.runtime import celery_app
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.runtime.orders import Orders
from penstock_worker.runtime.poller import Poller
from penstock_worker.runtime.shutdown import Shutdown
from penstock_worker.runtime.worker_status import WorkerStatus, say_goodbye
from penstock_worker.slices.run_context import RunContext
from penstock_worker.slices.slice_consumer import SliceConsumer

log = structlog.get_logger()

_HEAR_AGAIN_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 1.0

R = TypeVar("R")


@contextmanager
def _database(settings: ServerSettings, most: int) -> Iterator[tuple[Database, Hinter]]:
    hinter = Hinter(settings.redis_url, settings.hint_timeout_seconds)
    db = Database(sync_engine(settings.database_url, most), hinter.say)
    try:
        yield db, hinter
    finally:
        hinter.close()
        db.close()


def io(settings: Settings) -> None:
    """Run the io worker until SIGTERM."""
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        db, hinter = stack.enter_context(_database(settings, connections.IO_POOL))
        holder = Holder(uuid.uuid4(), "io", None, socket.gethostname(), os.getpid())
        stack.callback(say_goodbye, db, holder, settings)
        beat = Beat(db, holder, settings)
        worker_status = stack.enter_context(WorkerStatus(db, beat, holder, settings))
        worker_status.register(0)
        stack.enter_context(beat)
        tasks = BatchTasks(db, Blobs(settings.blob_url), beat, holder, settings)
        foldings = FoldTasks(db, Blobs(settings.blob_url), beat, holder, settings)
        evals = EvalTasks(db, Blobs(settings.blob_url), beat, settings)
        poller = Poller(
            lambda: tasks.look() or foldings.look() or evals.look(),
            places=connections.IO_TASKS,
            poll_seconds=settings.poll_seconds,
        )
        sender = _sender(settings, hinter)
        end = Shutdown(beat, poller, lambda: say_goodbye(db, holder, settings), also=(sender,))
        end.listen()
        stack.enter_context(sender)
        stack.enter_context(poller)

        def take(takes: bool) -> None:
            celery_app.hear(takes)
            sender.pause(not takes)

        stack.enter_context(Orders(db, beat, holder, worker_status, take))
        run = _heard(poller, tasks.run)
        celery_app.doers.update(validate=run, assemble=run, deliver=sender.hear, evaluate=_heard(poller, evals.run))
        celery_app.doers.update(fold=_heard(poller, foldings.run))
        queues = [DELIVER_QUEUE, VALIDATE_QUEUE, FOLD_QUEUE, ASSEMBLE_QUEUE, EVALUATE_QUEUE]
        _consume("io", queues, connections.IO_TASKS, end)


def _sender(settings: Settings, hinter: Hinter) -> WebhookSender:
    db = AsyncDatabase(async_engine(settings.database_url, connections.WEBHOOK_SENDER), hinter.say)
    allow, open_ports = networks(settings.outbound_allow), ports(settings.outbound_ports)
    return WebhookSender(db, Outbound(allow, ports=open_ports, plain_http=settings.outbound_http), settings)


def gpu(
    settings: Settings,
    model: str,
    source: str,
    engine_kind: str,
    arguments: Sequence[str],
    promote: bool = False,
    in_pool: int | None = None,
) -> None:
    """Run a gpu worker and its engine until SIGTERM. `promote`: it takes over a name that no other machine serves.
    `in_pool`: a pool's host started it as this version, and drains it when another is to have its place.

    Raises BadLaunch or NoModel for what no engine can be started with. An engine that says so itself ends the process
    with one line and status 1.
    """
    folder = settings.runtime_dir / model_slug(model)
    launch = kind.launch(
        engine_kind,
        model=model,
        source=source,
        socket=folder / "engine.sock",
        arguments=arguments,
        environ=os.environ,
        python=os.environ.get("PENSTOCK_ENGINE_PYTHON", sys.executable),
    )
    gone = timedelta(seconds=settings.worker_gone_seconds)
    definition = defined_here(source, engine_kind, arguments)
    log_path = settings.log_dir / f"engine-{model_slug(model)}.log"
    download = look(source, arguments, launch.environment, launch.profile.source)
    if download is not None:
        mark(download.blobs.parent)
    with ExitStack() as stack:
        db, hinter = stack.enter_context(_database(settings, connections.GPU))
        holder = Holder(uuid.uuid4(), "gpu", model, socket.gethostname(), os.getpid())
        beat = Beat(db, holder, settings)
        worker_status = stack.enter_context(
            WorkerStatus(db, beat, holder, settings, lambda trouble: _give_up(trouble, log_path))
        )
        try:
            worker_status.register(launch.batch_slots, launch.profile, device.of(launch))
        except Conflict as error:  # its name is an ensemble's
            _end(error.message)
        stack.enter_context(beat)
        loop = stack.enter_context(LoopThread())
        client = EngineClient(
            socket=launch.socket,
            generation=lambda: supervisor.generation,
            profile=launch.profile,
            max_answer_bytes=settings.max_answer_bytes,
        )
        stack.enter_context(loop.living(client))
        supervisor = Supervisor(
            launch,
            runtime_dir=folder,
            log_path=log_path,
            stuck_seconds=settings.engine_stuck_seconds,
            on_ready=lambda generation: worker_status.ready(announce, lambda: works(generation)),
            on_death=lambda generation, reason: lose(reason),
        )
        cache = Cache(settings.cache_url or settings.redis_url, bounds(settings))
        answer_cache = AnswerCache(stack.enter_context(closing(cache)))
        pace = Pace(settings.engine_gpus or launch.gpus)
        refill = Refill() if settings.steady_refill else None
        gate = Gate(launch.batch_slots, launch.engine_slots, launch.overtakers, refill)
        loader = AdapterLoader(
            launch,
            client,
            folder / "adapters",
            source,
            _of_adapters(db, adapters.source),
            _of_adapters(db, adapters.loaded),
        )
        residency = AdapterResidency(launch.adapters, loader.load, loader.unload, lambda: supervisor.generation)
        engine = EngineContext(client, gate, supervisor, loop, settings, answer_cache, pace, residency)

        def announce() -> None:
            answer_cache.revision = revision.of(launch)
            try:
                version = db.run(
                    versions.serve,
                    holder,
                    definition,
                    answer_cache.revision,
                    promoted=promote,
                    wanted=in_pool,
                    gone=gone,
                )
            except Conflict as error:
                _end(error.message)
            log.info("serves", version=version.name)
            served = replace(holder, model=version.queue)
            worker_status.serve(served)
            celery_app.hear_other([generate_queue(version.queue, lane) for lane in LANES])
            consumer.serve(served)
            ingress.announce(version.queue)

        def lose(reason: str) -> None:
            consumer.serve(None)  # what is started next may be another version
            worker_status.dead(reason, supervisor.trouble)

        def works(generation: int) -> None:
            consumer.say_owed()
            orders.engine_is_ready(generation)

        def take(takes: bool) -> None:
            celery_app.hear(takes)
            ingress.rest(not takes)
            if takes:
                consumer.say_owed()

        meter = Meter()
        consumer = SliceConsumer(
            RunContext(db, Blobs(settings.blob_url), engine, beat, settings, meter), None, hinter.say
        )
        ingress = stack.enter_context(WorkerIngress(db, holder, engine, meter))
        orders = Orders(db, beat, holder, worker_status, take, (supervisor, ingress), gives_back=in_pool is not None)
        stack.enter_context(supervisor)
        stack.enter_context(orders)
        stack.enter_context(telling(download, lambda: supervisor.state is not EngineState.READY))
        poller = Poller(consumer.look, places=SLICE_SLOTS, poll_seconds=settings.poll_seconds)
        end = Shutdown(beat, poller, worker_status.goodbye, also=(worker_status, ingress))
        end.listen()
        stack.enter_context(poller)
        celery_app.doers.update(generate=_heard(poller, consumer.one))
        queues = [generate_queue(model, lane) for lane in LANES]
        _consume(f"gpu-{model_slug(model)}", queues, SLICE_PLACES + 2, end)
        end.wait_until_empty()
        worker_status.goodbye()


def pool(settings: Settings, name: str) -> None:
    """Run a pool's host and its members until SIGTERM; end with one line if there is no such pool, or no more."""
    with ExitStack() as stack:
        try:
            place = stack.enter_context(host_place.held(name, settings.runtime_dir))
        except host_place.PlaceTaken as taken:
            _end(str(taken))
        db, _ = stack.enter_context(_database(settings, connections.POOL))
        holder = Holder(uuid.uuid4(), "pool", None, socket.gethostname(), os.getpid(), name)
        beat = Beat(db, holder, settings)
        members = stack.enter_context(MemberSet())
        host = HostLoop(name, settings, members)
        host.listen(beat)
        rows = PoolRows(db, holder, name, settings, host.again)
        with suppress(HostEnds, Unavailable):
            found = rows.pool()
            if found is None:
                _end(f"There is no pool {name}: make it with `penstock pools create`.")
            if why := member_launch.why_not_here(found, settings):
                _end(why)
            if earlier := place.earlier:
                rows.end_earlier(earlier)
            worker_status = stack.enter_context(WorkerStatus(db, beat, holder, settings))
            worker_status.register(0, device=device.here())
            place.take(holder.id)
            stack.enter_context(beat)

            def take(takes: bool) -> None:
                host.drained = not takes

            stack.enter_context(Orders(db, beat, holder, worker_status, take))
            log.info("pool_host", pool=name)
            why = host.run(rows, Switching(rows, members, host, settings, name))
            members.end_all()
            with suppress(Unavailable):
                rows.gone()
                worker_status.goodbye()
                place.leave()
            if why:
                _end(why)


def _of_adapters(db: Database, use_case: Callable[..., R]) -> Callable[..., Awaitable[R]]:
    """A use case of adapters for the loop's own: what they know stands in Postgres, which may be away for a while."""

    async def asked(*values: str) -> R:
        while True:
            with suppress(Unavailable):
                return await asyncio.to_thread(db.run, use_case, *values)
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    return asked


def _give_up(trouble: EngineTrouble, log_path: Path) -> None:
    """End the process: it never had work, its engine is gone, and another start would fail alike."""
    _end(f"The engine does not start: {trouble.why} (its log: {log_path})")


def _end(why: str) -> NoReturn:
    """End the process with one line; its guard ends the engine."""
    print(f"penstock worker: {why}", file=sys.stderr, flush=True)
    os._exit(1)


def _heard(poller: Poller, do: Callable[..., str]) -> Callable[..., str]:
    """A task that also tells the poller that hints arrive."""

    def run(*arguments: object) -> str:
        poller.heard()
        return do(*arguments)

    return run


def _consume(name: str, queues: Sequence[str], threads: int, end: Shutdown) -> None:
    """Hear hints until SIGTERM.

    Celery ends by itself when Redis is full (kombu can't note an unacknowledged message). That is no reason to end an
    engine: what is in hand goes on, the poller looks for more, and hints are heard again a little later.
    """
    while True:
        celery_app.consume(name, queues, threads, end)
        if end.begun():
            break
        log.error("celery_ended_by_itself", name=name)
        end.listen()
        if end.begun(_HEAR_AGAIN_SECONDS):
            break
    end.over()
