"""Statements about batches, counted as they are sent to the database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event


class Sent(list[str]):
    """Statements; `four` of them are there."""

    def __init__(self) -> None:
        super().__init__()
        self.four = threading.Event()


@contextmanager
def looks() -> Iterator[Sent]:
    """What is sent to the database meanwhile about batches, by whoever it is; a process has ticks of its own, too."""
    sent = Sent()

    def note(*said: Any) -> None:
        if "batches" in said[2]:
            sent.append(said[2])
            if len(sent) == 4:
                sent.four.set()

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)
