"""Hints over Celery: publishing may fail, and then it is counted and forgotten; the keeper says hints again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from celery import Celery
from prometheus_client import Counter

from penstock.domain.work.hint import Hint

log = structlog.get_logger()

_ANSWER_SECONDS: Final = 5.0

SAID = Counter("penstock_hints_said", "Hints published to Redis, by task.", ["task"])
UNSAID = Counter("penstock_hints_unsaid", "Hints that could not be published; the keeper says them again.")


def celery_settings(redis_url: str, timeout_seconds: float) -> dict[str, Any]:
    """Celery's settings for publishers and workers alike: JSON only, no results, strict order between queues.

    Sources: kombu 5.7 `queue_order_strategy` (round robin unless told otherwise); `priority_steps=[0]` keeps one
    Redis list a queue; socket timeouts because publishing can hang otherwise (celery #4627).
    """
    return {
        "broker_url": redis_url,
        "result_backend": None,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": False,
        "task_create_missing_queues": True,
        "task_default_queue": "penstock.unrouted",
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": timeout_seconds,
        "broker_transport_options": {
            "queue_order_strategy": "priority",
            "priority_steps": [0],
            "socket_connect_timeout": timeout_seconds,
            # A peer that vanished is noticed, and connected to anew; a blocking read (kombu's BRPOP) takes a second.
            "socket_timeout": _ANSWER_SECONDS,
            "socket_keepalive": True,
        },
    }


class Hinter:
    """Says hints from a thread of its own, so that nobody waits for Redis."""

    def __init__(self, redis_url: str, timeout_seconds: float) -> None:
        settings = celery_settings(redis_url, timeout_seconds)
        settings["broker_transport_options"] = settings["broker_transport_options"] | {
            "socket_timeout": timeout_seconds,
            "max_retries": 0,
        }
        self._app = Celery("penstock", set_as_current=False)
        self._app.conf.update(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hints")
        self._timeout_seconds = timeout_seconds
        self._silent_until = 0.0

    def say(self, hints: Sequence[Hint]) -> None:
        """Publish soon; never raises, never blocks. After a failure nothing is said for a while: nothing piles up."""
        if time.monotonic() < self._silent_until:
            UNSAID.inc(len(hints))
        else:
            self._thread.submit(self._publish, list(hints))

    def _publish(self, hints: list[Hint]) -> None:
        for index, hint in enumerate(hints):
            if time.monotonic() < self._silent_until:
                UNSAID.inc(len(hints) - index)
                return
            try:
                self._app.send_task(hint.task, kwargs=hint.kwargs, queue=hint.queue, retry=False)
            except Exception as error:  # a hint is never worth an error; the rest would wait for the same timeout
                UNSAID.inc(len(hints) - index)
                self._silent_until = time.monotonic() + self._timeout_seconds
                log.warning("hints_unsaid", count=len(hints) - index, error=type(error).__name__)
                return
            SAID.labels(hint.task).inc()

    def close(self) -> None:
        """Say what is waiting, then stop."""
        self._thread.shutdown(wait=True)
        self._app.close()
