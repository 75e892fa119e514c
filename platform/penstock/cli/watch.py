"""Watching a batch: a live bar with its speed and the time left, and the reason when nothing happens."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.outlet import visible
from penstock.cli.patient_client import PatientClient
from penstock.cli.printing import is_live

if TYPE_CHECKING:
    from rich.console import Console

ENDED: Final = ("completed", "failed", "expired", "cancelled")
POLL_SECONDS: Final = 0.5
PLAIN_NEWS_SECONDS: Final = 5.0
SPEED_WINDOW_SECONDS: Final = 30.0

Show = Callable[[dict[str, Any], str], None]


def path(id: str) -> str:
    """The route of a batch or a job."""
    return f"/jobs/{id}" if id.startswith("job_") else f"/batches/{id}"


def watch(patient: PatientClient, id: str, console: Console) -> dict[str, Any]:
    """Follow a batch or job until it ends, over restarts of the API; its last state."""
    pace = BatchPace()
    with shown(console) as show:
        while True:
            seen: dict[str, Any] = patient.json(path(id), params={"wait": POLL_SECONDS})
            pace.note(seen, time.monotonic())
            show(seen, why(seen) or pace.words(seen, time.time()))
            if seen["status"] in ENDED:
                return seen


def left(counts: dict[str, int]) -> int:
    """How many lines have no end yet."""
    return counts["total"] - counts["completed"] - counts["failed"]


def counted(counts: dict[str, int]) -> str:
    """`2 answered · 1 failed · 0 left`: a failed line is an end, and never looks like an answer."""
    return f"{counts['completed']:,} answered · {counts['failed']:,} failed · {left(counts):,} left"


class BatchPace:
    """Lines and tokens a second over the last while."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, batch: dict[str, Any], now: float) -> None:
        """Take in what was seen at this monotonic time (seconds)."""
        counts = batch["request_counts"]
        self._seen.append((now, counts["completed"] + counts["failed"], batch["usage"]["output_tokens"]))
        while now - self._seen[0][0] > SPEED_WINDOW_SECONDS:
            self._seen.popleft()

    def words(self, batch: dict[str, Any], now_unix: float) -> str:
        """`12.5 lines/s · 410 tokens/s · 45 s left`, as far as it is known."""
        (began, lines_then, tokens_then), (now, lines, tokens) = self._seen[0], self._seen[-1]
        seconds = now - began
        expected = outlook(batch.get("expected"), now_unix)
        if seconds <= 0 or lines == lines_then:
            return expected
        speed = (lines - lines_then) / seconds
        rest = duration(left(batch["request_counts"]) / speed)
        pace = f"{speed:,.1f} lines/s · {(tokens - tokens_then) / seconds:,.0f} tokens/s"
        return f"{pace} · {expected or f'{rest} left'}"


def outlook(expected: dict[str, Any] | None, now_unix: float) -> str:
    """`3 min 20 s left (2 min 5 s to 6 min 40 s)`, and whether that is too late; nothing if it is not known."""
    if not expected or expected["completion_at"] is None:
        return ""
    times = (expected["completion_at"], expected["earliest_at"], expected["latest_at"])
    likely, least, most = (duration(max(0.0, at - now_unix)) for at in times)
    late = "" if expected["meets_deadline"] else ", after its deadline"
    return f"{likely} left ({least} to {most}{late})"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def why(batch: dict[str, Any]) -> str:
    """Why nothing happens, if so; else nothing."""
    if batch.get("paused"):
        return f"paused: penstock batches resume {batch['id']}"
    waiting = batch.get("waiting")
    if not waiting:
        return ""
    if waiting["reason"] == "no_worker":
        return f"waits: no live worker serves {', '.join(waiting['models'])}"
    if waiting["reason"] == "asleep":
        return f"waits: {waiting.get('message') or ', '.join(waiting['models']) + ' is asleep'}"
    return "waits: no io worker is live"


@contextmanager
def shown(console: Console) -> Iterator[Show]:
    """Show what is seen: a bar on a terminal, else a line when the state changes, and one now and then."""
    if not is_live(console):
        yield _plain(console)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    texts = ("{task.description:<11}", "{task.fields[words]}", "{task.fields[lines]}")
    state, words, lines = (TextColumn(text, markup=False) for text in texts)
    with Progress(state, BarColumn(bar_width=16), lines, words, console=console) as bar:
        task = bar.add_task("validating", total=None, lines="", words="")

        def live(batch: dict[str, Any], words: str) -> None:
            counts = batch["request_counts"]
            done = counts["completed"] + counts["failed"]
            total, lines = counts["total"] or None, counted(counts) if counts["total"] else ""
            state = visible(batch["status"])
            bar.update(task, description=state, total=total, completed=done, lines=lines, words=visible(words))

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
        parts = (f"{batch['id']} {batch['status']}", counted(counts) if counts["total"] else "", words)
        console.print(" · ".join(part for part in parts if part))

    return line
