"""Watching a batch: a live bar with its speed and the time left, and the reason when nothing happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.outlet import visible
from penstock.cli.patient_client import PatientClient
from penstock.cli.printing import is_live
from penstock.domain.work import batch_words
from penstock.domain.work.batch_pace import BatchPace
from penstock.domain.work.batch_words import counted, duration, left

if TYPE_CHECKING:
    from rich.console import Console

ENDED: Final = ("completed", "failed", "expired", "cancelled")
POLL_SECONDS: Final = 0.5
PLAIN_NEWS_SECONDS: Final = 5.0

Show = Callable[[dict[str, Any], str], None]


def path(id: str) -> str:
    """The route of a batch or a job."""
    return f"/jobs/{id}" if id.startswith("job_") else f"/batches/{id}"


def watch(patient: PatientClient, id: str, console: Console) -> dict[str, Any]:
    """Follow a batch or job until it ends, over restarts of the API; its last state."""
    pace = SeenPace()
    with shown(console) as show:
        while True:
            seen: dict[str, Any] = patient.json(path(id), params={"wait": POLL_SECONDS})
            pace.note(seen, time.monotonic())
            show(seen, why(seen) or pace.words(seen, time.time()))
            if seen["status"] in ENDED:
                return seen


def lines(batch: dict[str, Any]) -> str:
    """How many of its lines are answered, failed and left."""
    counts = batch["request_counts"]
    return counted(counts["total"], counts["completed"], counts["failed"])


class SeenPace:
    """How fast a batch that is looked at again and again goes."""

    def __init__(self) -> None:
        self._pace = BatchPace()

    def note(self, batch: dict[str, Any], now: float) -> None:
        """Take in what was seen at this monotonic time (seconds)."""
        counts = batch["request_counts"]
        self._pace.note(counts["completed"] + counts["failed"], batch["usage"]["output_tokens"], now)

    def words(self, batch: dict[str, Any], now_unix: float) -> str:
        """`12.5 lines/s · 410 tokens/s · 45 s left`, as far as it is known."""
        pace, expected = self._pace.now(), outlook(batch.get("expected"), now_unix)
        if pace is None or not pace.lines:
            return expected
        counts = batch["request_counts"]
        rest = duration(left(counts["total"], counts["completed"], counts["failed"]) / pace.lines)
        return f"{pace.words} · {expected or f'{rest} left'}"


def outlook(expected: dict[str, Any] | None, now_unix: float) -> str:
    """When it is expected to be done, if that is known; else nothing."""
    if not expected or expected["completion_at"] is None:
        return ""
    times = (expected["completion_at"], expected["earliest_at"], expected["latest_at"])
    return batch_words.outlook(*times, now_unix, in_time=expected["meets_deadline"])


def why(batch: dict[str, Any]) -> str:
    """Why nothing happens, if so; else nothing."""
    waiting = batch.get("waiting")
    if batch.get("paused") and (not waiting or waiting["reason"] == "paused"):
        return f"paused: penstock batches resume {batch['id']}"
    return f"waits: {waiting['message']}" if waiting else ""


@contextmanager
def shown(console: Console) -> Iterator[Show]:
    """Show what is seen: a bar on a terminal, else a line when the state changes, and one now and then."""
    if not is_live(console):
        yield _plain(console)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    texts = ("{task.description:<11}", "{task.fields[words]}", "{task.fields[lines]}")
    state, words, shown_lines = (TextColumn(text, markup=False) for text in texts)
    with Progress(state, BarColumn(bar_width=16), shown_lines, words, console=console) as bar:
        task = bar.add_task("validating", total=None, lines="", words="")

        def live(batch: dict[str, Any], words: str) -> None:
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            total, told = counts["total"] or None, lines(batch) if counts["total"] else ""
            state = visible(batch["status"])
            bar.update(task, description=state, total=total, completed=done, lines=told, words=visible(words))

        yield live


def _plain(console: Console) -> Show:
    """Where no terminal is: a line when the state changes, and one now and then."""
    last_status, last_time = "", 0.0

    def line(batch: dict[str, Any], words: str) -> None:
        nonlocal last_status, last_time
        now = time.monotonic()
        if batch["status"] == last_status and now - last_time < PLAIN_NEWS_SECONDS:
            return
        last_status, last_time = batch["status"], now
        counts = batch["request_counts"]
        parts = (f"{batch['id']} {batch['status']}", lines(batch) if counts["total"] else "", words)
        console.print(" · ".join(part for part in parts if part))

    return line
