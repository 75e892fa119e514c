"""An examination: all looks at once, each with its time, in the order in which they were named."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Final

from penstock.doctor.finding import Finding, Look, failed, words

PATIENCE_SECONDS: Final = 12.0
"""Longer than any wait of a look's own: only what hangs is cut off."""


def examine(looks: Mapping[str, Look], patience_seconds: float = PATIENCE_SECONDS) -> list[Finding]:
    """What all looks find. One that hangs or breaks is a finding, and holds nobody up."""
    answers = {name: _begin(look) for name, look in looks.items()}
    until = time.monotonic() + patience_seconds
    found: list[Finding] = []
    for name, answer in answers.items():
        try:
            found += answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            found.append(failed(name, f"it says nothing for {patience_seconds:g} s", "Restart what hangs."))
        except Exception as error:
            found.append(failed(name, f"{type(error).__name__}: {words(error)}", "Please report this."))
    return found


def _begin(look: Look) -> Future[list[Finding]]:
    """In a thread that nobody waits for at the end: a pool's would hold the process up."""
    answer: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            answer.set_result(list(look()))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="look", daemon=True).start()
    return answer
