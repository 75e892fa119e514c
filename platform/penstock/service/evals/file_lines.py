"""The lines of a file that an eval names, one by one; work on it is prolonged meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.blobs.store import Blobs
from penstock.domain.evals.run import RunFailed
from penstock.formats import input as lines
from penstock.service.evals.eval_work import Hold
from penstock.settings.limits import LimitSettings


def read(
    blobs: Blobs, key: str, hold: Hold, settings: LimitSettings, *, code: str, of: str
) -> Iterator[tuple[int, bytes]]:
    """Each line that is not empty, with its number from 1; raise RunFailed (`code`) for one that is too long.

    `of` says in that message which file's line it is.
    """
    for number, raw in enumerate(blobs.lines(key, longest=settings.max_line_bytes), 1):
        hold.tick()
        line = lines.tidy(raw, number)
        if not line:
            continue
        if len(line) > settings.max_line_bytes:
            raise RunFailed(code, f"Line {number}{of}: {lines.too_long(settings.max_line_bytes)}")
        yield number, line
