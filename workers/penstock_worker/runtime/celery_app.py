"""The Celery app and its tasks, thin: each calls what the process has set up, and returns a sentence for Flower."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutting_down
from celery.worker import state

from penstock.domain.work.lane import Lane
from penstock.settings import load
from penstock.wire.hints import celery_settings

log = structlog.get_logger()

app = Celery("penstock")


def _configuration() -> dict[str, Any]:
    settings = load()
    return celery_settings(settings.redis_url, settings.hint_timeout_seconds) | {
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_enable_remote_control": True,
        # Flower shows a task's result from its success event, at this length.
        "resultrepr_maxsize": 1024,
    }


app.add_defaults(_configuration)  # read when it is first needed: a process may be the copy of one that imported this

# What the tasks call; set by the worker process before it consumes, empty in Flower and in publishers.
doers: dict[str, Callable[..., str]] = {}


@app.task(name="penstock.generate")  # type: ignore[untyped-decorator] # Celery has no types
def generate(model: str, lane: str, **_: Any) -> str:
    """Run the best ready slice of the worker's model."""
    return doers["generate"](Lane(lane))


@app.task(name="penstock.validate")  # type: ignore[untyped-decorator] # Celery has no types
def validate(batch: str, **_: Any) -> str:
    """Validate and plan a batch."""
    return doers["validate"]("validate", batch)


@app.task(name="penstock.assemble")  # type: ignore[untyped-decorator] # Celery has no types
def assemble(batch: str, **_: Any) -> str:
    """Put a batch's files together."""
    return doers["assemble"]("assemble", batch)


@app.task(name="penstock.fold")  # type: ignore[untyped-decorator] # Celery has no types
def fold(batch: str, **_: Any) -> str:
    """Make one answer of what an ensemble's members said, for lines of a batch."""
    return doers["fold"](batch)


@app.task(name="penstock.evaluate")  # type: ignore[untyped-decorator] # Celery has no types
def evaluate(id: str, **_: Any) -> str:
    """Prepare or score a run of an eval, or compare two."""
    return doers["evaluate"](id)


@app.task(name="penstock.deliver")  # type: ignore[untyped-decorator] # Celery has no types
def deliver(batch: str, **_: Any) -> str:
    """Send what is owed to webhook endpoints."""
    return doers["deliver"](batch)


class _Hearing:
    """Whether hints are taken out of the queues at the moment; what a drained worker leaves there is for others."""

    def __init__(self) -> None:
        self._queues: Sequence[str] = ()
        self._other: Sequence[str] | None = None
        """What is to be heard instead of what it began with."""
        self._consumer: Any = None
        self._deaf = False

    def begin(self, queues: Sequence[str]) -> Sequence[str]:
        """Celery is about to consume these, or what was said to be heard instead; which."""
        self._queues, self._consumer = self._other or queues, None
        worker_ready.connect(self._ready, weak=False, dispatch_uid="hearing")
        return self._queues

    def _ready(self, sender: Any, **_: Any) -> None:
        self._consumer = sender
        sender.call_soon(self._exchange)
        if self._deaf:
            sender.call_soon(self._choose)

    def exchange(self, queues: Sequence[str]) -> None:
        """Take hints out of other queues from now on; may be called from any thread, and soon holds."""
        self._other = queues
        if self._consumer is not None:
            self._consumer.call_soon(self._exchange)

    def _exchange(self) -> None:
        """In Celery's own thread."""
        other = self._other
        if other is None or list(other) == list(self._queues):
            return
        deaf, self._deaf = self._deaf, True
        self._choose()
        self._queues, self._deaf = other, deaf
        if not deaf:
            self._choose()

    def set(self, hears: bool) -> None:
        """Hear hints, or leave them where they are; may be called from any thread, and soon holds."""
        self._deaf = not hears
        if self._consumer is not None:
            self._consumer.call_soon(self._choose)

    def _choose(self) -> None:
        """In Celery's own thread."""
        choose = self._consumer.cancel_task_queue if self._deaf else self._consumer.add_task_queue
        for queue in self._queues:
            try:
                choose(queue)
            except Exception as error:  # Redis is away: the queues that are chosen are consumed when it is back
                log.warning("queue_not_changed", queue=queue, error=type(error).__name__)


_hearing = _Hearing()


def hear(hears: bool) -> None:
    """Take hints out of the queues, or leave them to other workers; from any thread."""
    _hearing.set(hears)


def hear_other(queues: Sequence[str]) -> None:
    """Take hints out of these queues from now on, not out of those before; from any thread."""
    _hearing.exchange(queues)


def consume(name: str, queues: Sequence[str], threads: int, on_ending: Callable[[], None]) -> None:
    """Consume the queues strictly in this order until SIGTERM; then call `on_ending` and wait for running tasks.

    Returns also if Celery gives up by itself; it may be called again then.
    """
    state.should_stop = state.should_terminate = None
    queues = _hearing.begin(queues)
    worker_shutting_down.connect(lambda **_: on_ending(), weak=False, dispatch_uid="ending")
    app.worker_main(
        [
            "worker",
            "--pool=threads",
            f"--concurrency={threads}",
            f"--queues={','.join(queues)}",
            f"--hostname={name}.{os.getpid()}@%h",
            "--without-gossip",
            "--without-mingle",
            "--loglevel=WARNING",
        ]
    )
