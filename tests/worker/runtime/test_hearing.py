"""Hearing: which queues a worker takes hints out of, as Celery's consumer is told it."""

from __future__ import annotations

from collections.abc import Callable

from penstock_worker.runtime.celery_app import _Hearing

FIRST, SECOND = ["gpu.chat.flex"], ["gpu.chat-v2.flex"]


class Consumer:
    """What Celery's consumer is asked to do, done at once."""

    def __init__(self, *queues: str) -> None:
        self.queues = set(queues)
        self.add_task_queue = self.queues.add
        self.cancel_task_queue = self.queues.discard

    def call_soon(self, do: Callable[[], None]) -> None:
        do()


def heard(hearing: _Hearing, begun: list[str]) -> Consumer:
    """Celery has begun with these queues, or those that it was told."""
    consumer = Consumer(*hearing.begin(begun))
    hearing._ready(consumer)
    return consumer


def test_a_worker_that_knows_its_version_hears_its_queue_and_no_other() -> None:
    hearing = _Hearing()
    consumer = heard(hearing, FIRST)
    assert consumer.queues == set(FIRST)
    hearing.exchange(SECOND)
    assert consumer.queues == set(SECOND)


def test_a_drained_worker_hears_its_versions_queue_once_it_takes_work_again() -> None:
    hearing = _Hearing()
    consumer = heard(hearing, FIRST)
    hearing.set(False)
    hearing.exchange(SECOND)
    assert consumer.queues == set()
    hearing.set(True)
    assert consumer.queues == set(SECOND)


def test_what_is_known_before_celery_runs_or_runs_again_is_what_it_begins_with() -> None:
    hearing = _Hearing()
    hearing.exchange(SECOND)
    assert heard(hearing, FIRST).queues == set(SECOND)
    assert heard(hearing, FIRST).queues == set(SECOND)
