"""Results: a batch's lines on their way from the API to a file or to standard output."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.cli import own_files
from penstock.cli.client import check, not_penstock
from penstock.cli.patient_client import LOOK_AGAIN_SECONDS, PatientClient
from penstock.cli.printing import json_text
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx


def follow(patient: PatientClient, batch: str) -> Iterator[bytes]:
    """A batch's lines as they are recorded, each once, until it has ended; over restarts of the API."""
    had = 0
    while True:
        answer = patient.get(f"/batches/{batch}/results?after={had}")
        yield answer.content  # whole: what broke off is asked for again
        before, (had, more) = had, cursor(answer)
        if not more:
            return
        if had == before:
            time.sleep(LOOK_AGAIN_SECONDS)


def cursor(answer: httpx.Response) -> tuple[int, bool]:
    """How many lines one has had with a page of results, and whether there will be more. Raises Problem."""
    try:
        return int(answer.headers["x-last-line"]), answer.headers["x-incomplete"] != "false"
    except (KeyError, ValueError):
        raise Problem(not_penstock(answer)) from None


def lines_of(job: dict[str, Any]) -> Iterator[bytes]:
    """The lines of a job's own `results`, with their line ends, as files of them would be."""
    return (json_text(line, separators=(",", ":")).encode() + b"\n" for line in job["results"])


def split(job: dict[str, Any]) -> tuple[list[bytes], list[bytes]]:
    """These lines, answered and failed."""
    good: list[bytes] = []
    bad: list[bytes] = []
    for line, result in zip(lines_of(job), job["results"], strict=True):
        response = result["response"]
        (good if response is not None and 200 <= response["status_code"] < 300 else bad).append(line)
    return good, bad


def pieces(client: httpx.Client, file: str | None) -> Iterator[bytes]:
    """A file's bytes as they come; nothing, where there is no such file."""
    if file is None:
        return
    with client.stream("GET", f"/files/{file}/content", timeout=None) as answer:
        if not answer.is_success:
            answer.read()
        check(answer)
        yield from answer.iter_bytes()


def fetch(client: httpx.Client, file: str | None, target: Path | None) -> None:
    """Write a file's bytes; nothing, where there is no such file."""
    write(pieces(client, file), target)


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
    try:
        if target.exists() and not target.is_file() and not target.is_dir():  # a device or a pipe takes it as it comes
            with target.open("wb") as file:
                file.writelines(pieces)
            return
        real = own_files.target(target)
        part = own_files.part_of(real, uuid.uuid4().hex[:8])  # nobody else's
        try:
            with part.open("xb") as file:
                file.writelines(pieces)
            part.replace(real)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Problem(f"{target} can't be written: {error.strerror}.") from None
