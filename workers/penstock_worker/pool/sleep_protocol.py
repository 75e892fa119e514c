"""Sleep: how an engine is put to sleep and woken, and how it is seen that it did.

What vLLM answers is not relied on. Put to sleep with requests in it, it aborts them and answers 200 (its default), or
dies and has answered 200 (vllm#45520); what arrives while it sleeps hangs (vllm#45268). So the member is empty and its
door is shut before, `mode=wait` is said all the same, and afterwards it is asked whether it sleeps, and the device how
much memory is free. Each fault is a sentence: whoever hears one ends the member, and the version starts cold next time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineSleep
from penstock_worker.engine import device_memory, metrics
from penstock_worker.engine.process import probe

_ASK_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_SETTLE_SECONDS: Final = 0.3
"""One that dies of falling asleep does so right after it has said that it sleeps."""


def memory_bytes(socket: Path, sleep: EngineSleep) -> float | None:
    """Device memory in use: by the engine itself if it tells, else of all GPUs that are seen; None if nobody tells."""
    if sleep.memory_metric is None:
        return device_memory.used_bytes()
    answer = probe.get(socket, "/metrics", _ASK_SECONDS)
    found = metrics.read(answer[1].decode(errors="replace"), frozenset([sleep.memory_metric])) if answer else {}
    return sum(found[sleep.memory_metric]) if found else None


def fall_asleep(socket: Path, sleep: EngineSleep, seconds: float, frees: float, least: float) -> str:
    """Put an engine to sleep that nothing is in; why that failed, or empty.

    Of its device memory (what is in use now, less the `least` that was in use before it started) it frees this part.
    """
    before = memory_bytes(socket, sleep)
    answer = probe.post(socket, sleep.path, b"{}", seconds)
    if answer is None:
        return f"It has not fallen asleep within {seconds:.0f} s."
    if answer[0] != 200:
        return f"It refused to sleep, with status {answer[0]}."
    if not _until(lambda: _sleeps(socket, sleep) is True):
        return "It said that it sleeps, and does not."
    time.sleep(_SETTLE_SECONDS)
    if _sleeps(socket, sleep) is not True or not probe.healthy(socket, _ASK_SECONDS):
        return "It said that it sleeps, and is dead."
    if before is None:
        return ""
    most = before - frees * max(0.0, before - least)

    def freed() -> bool:
        now = memory_bytes(socket, sleep)
        return now is not None and now <= most

    if not _until(freed):
        now = memory_bytes(socket, sleep) or 0.0
        return f"Asleep it keeps {_gib(now)} of {_gib(before)} GiB of device memory."
    return ""


def wake_up(socket: Path, sleep: EngineSleep, seconds: float) -> str:
    """Wake an engine; why that failed, or empty. Whether it can work is for a token probe to say."""
    answer = probe.post(socket, sleep.wake_path, b"{}", seconds)
    if answer is None:
        return f"It has not woken up within {seconds:.0f} s."
    if answer[0] != 200:
        return f"It refused to wake up, with status {answer[0]}."
    if not _until(lambda: _sleeps(socket, sleep) is False):
        return "It said that it is awake, and is not."
    return ""


def _until(look: Callable[[], bool]) -> bool:
    """Look again and again, for a few seconds; whether there was something to see."""
    end = time.monotonic() + _ASK_SECONDS
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _sleeps(socket: Path, sleep: EngineSleep) -> bool | None:
    """Whether it says that it sleeps; None if it says nothing."""
    answer = probe.get(socket, sleep.asked_path, _ASK_SECONDS)
    if answer is None or answer[0] != 200:
        return None
    try:
        said = json.loads(answer[1])["is_sleeping"]
    except (ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, bool) else None


def _gib(amount: float) -> str:
    return f"{amount / 2**30:.1f}"
