"""Waking: how long an engine takes from asleep until it answers, where it was started so that it can sleep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.domain.engines.profiles import PROFILES
from penstock_worker.engine.launch_spec import Launch, has_flag
from penstock_worker.pool import sleep_protocol, token_probe


@dataclass(frozen=True)
class SleepTerms:
    """When it counts as asleep, as in a pool."""

    seconds: float = 60.0
    """It has fallen asleep, or woken up, by then."""
    frees: float = 0.5
    """The part of its device memory that is free then."""


def environment(engine: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """What it is started in: as a pool starts it, where its arguments say that it is to sleep."""
    profile = PROFILES.get(engine)
    sleep = profile.sleep if profile else None
    return {**environ, **sleep.environment} if sleep and has_flag(arguments, sleep.flag) else environ


def seconds(launch: Launch, terms: SleepTerms, used_before: int | None) -> float | None:
    """Put it to sleep and wake it; None if it can't, or did not. Nothing may be in it, and nobody need use it after.

    `used_before` is the device memory that was in use before it started, in bytes.
    """
    sleep = launch.profile.sleep
    if sleep is None or not has_flag(launch.command, sleep.flag):
        return None
    if sleep_protocol.fall_asleep(launch.socket, sleep, terms.seconds, terms.frees, float(used_before or 0)):
        return None
    begun = time.monotonic()
    if sleep_protocol.wake_up(launch.socket, sleep, terms.seconds):
        return None
    if token_probe.fault(launch.socket, launch.model, terms.seconds):
        return None
    return time.monotonic() - begun
