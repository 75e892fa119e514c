"""Results: a batch's lines on their way from the API to a file or to standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from penstock.cli.client import check, json_text
from penstock.stack.problem import Problem

LOOK_AGAIN_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 300.0
"""So long a follower tries to reach an API that was there before."""


def follow(client: httpx.Client, batch: str) -> Iterator[bytes]:
    """A batch's lines as they are recorded, each once, until it has ended; over restarts of the API."""
    had, patient_until = 0, 0.0
    while True:
        answer = _asked(client, f"/batches/{batch}/results?after={had}", patient_until)
        yield answer.content  # whole: what broke off is asked for again
        before, had = had, int(answer.headers["x-last-line"])
        if answer.headers["x-incomplete"] == "false":
            return
        if had == before:
            time.sleep(LOOK_AGAIN_SECONDS)
        patient_until = time.monotonic() + PATIENCE_SECONDS


def followed(client: httpx.Client, batch: str) -> Any:
    """The batch, once it was followed to its end."""
    return _asked(client, f"/batches/{batch}", time.monotonic() + PATIENCE_SECONDS).json()


def _asked(client: httpx.Client, path: str, patient_until: float) -> httpx.Response:
    """What the API answers; until then one that is away, or that says to come later, is asked again."""
    while True:
        try:
            answer = client.get(path)
        except httpx.TransportError:
            if time.monotonic() > patient_until:
                raise
            time.sleep(LOOK_AGAIN_SECONDS)
            continue
        if answer.status_code not in (429, 503) or time.monotonic() > patient_until:
            check(answer)
            return answer
        later = answer.headers.get("retry-after", "")
        time.sleep(int(later) if later.isdecimal() else LOOK_AGAIN_SECONDS)


def split(lines: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """The lines of a job's own `results`, answered and failed, as files of them would be."""
    good: list[str] = []
    bad: list[str] = []
    for line in lines:
        answered = line["response"] is not None and 200 <= line["response"]["status_code"] < 300
        (good if answered else bad).append(json_text(line, separators=(",", ":")) + "\n")
    return "".join(good).encode(), "".join(bad).encode()


def fetch(client: httpx.Client, file: str | None, target: Path | None) -> None:
    """Write a file's bytes; nothing, where there is no such file."""
    if file is None:
        write([], target)
        return
    with client.stream("GET", f"/files/{file}/content", timeout=None) as answer:
        if not answer.is_success:
            answer.read()
        check(answer)
        write(answer.iter_bytes(), target)


def write(pieces: Iterable[bytes], target: Path | None) -> None:
    """Write to standard output as they come, or to a file that is there only once it is whole."""
    if target is None:
        for piece in pieces:
            try:
                sys.stdout.buffer.write(piece)
                sys.stdout.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise Problem(f"Standard output can't be written: {error.strerror}.") from None
        return
    part = target.with_name(target.name + ".part")
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        part.replace(target)
    except OSError as error:
        raise Problem(f"{target} can't be written: {error.strerror}.") from None
