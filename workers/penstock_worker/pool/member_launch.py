"""A member's launch: how a pool host starts one version: an ordinary gpu worker, with folders of its own.

Its runtime folder has a short name, since an address of a unix socket has 107 bytes at most; it begins with the pool's
mark, by which a host finds what one before it left.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineSleep
from penstock.domain.engines.profiles import PROFILES
from penstock.domain.models.version import Version
from penstock.domain.pools.pool import Pool, why_no_member
from penstock.domain.work.lane import model_slug
from penstock.settings import Settings
from penstock_worker.engine.launch_spec import has_flag

_MARK_CHARACTERS: Final = 5
_SLEEPERS_BEAT_SECONDS: Final = 0.5


class CannotBeMember(ValueError):
    """A pool host can't start this version."""


@dataclass(frozen=True)
class MemberLaunch:
    """One way to start a version's gpu worker."""

    queue: str
    model: str
    """The name that its engine serves."""
    sleep: EngineSleep | None
    """How its engine sleeps; None if it can't, or was not told to."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment, not an addition to ours."""
    folder: Path
    """Its runtime folder."""
    log_path: Path

    @property
    def record_path(self) -> Path:
        """Which processes it has, for a host that starts later."""
        return self.folder / "member.json"

    @property
    def engine_record_path(self) -> Path:
        """Which processes its engine has."""
        return self._engine_folder / "engine.json"

    @property
    def socket(self) -> Path:
        """Where its engine listens."""
        return self._engine_folder / "engine.sock"

    @property
    def _engine_folder(self) -> Path:
        return self.folder / model_slug(self.model)


def mark(text: str) -> str:
    """Five letters and digits that stand for a name in a path."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return base64.b32encode(digest).decode().lower()[:_MARK_CHARACTERS]


def why_not_here(pool: Pool, settings: Settings) -> str:
    """Why a host with these settings can't serve a pool, in a sentence; empty if it can."""
    asleep = settings.pool_asleep if any(_sleep_of(one.version, settings) for one in pool.members) else 0
    at_once = min(len(pool.members), pool.terms.awake + asleep)
    fixed = [
        name
        for name, value in (("PORT", settings.ingress_port), ("URL", settings.ingress_url))
        if value and settings.ingress_token
    ]
    if not fixed or at_once < 2:
        return ""
    return (
        f"PENSTOCK_INGRESS_{fixed[0]} is for one worker, and {at_once} members of pool {pool.name} may live here at "
        "once, each with an ingress of its own: leave it out."
    )


def describe(pool: str, version: Version, settings: Settings, environ: Mapping[str, str]) -> MemberLaunch:
    """Describe how this host starts a version. Raises CannotBeMember."""
    if why := why_no_member(version):
        raise CannotBeMember(why)
    made = version.definition
    command = [sys.executable, "-m", "penstock_worker", "gpu", f"--in-pool={version.number}"]
    command += ["--model", f"{version.model}={made.source}", "--engine", made.engine]
    command += [f"--engine-arg={argument}" for argument in made.arguments]
    sleep = _sleep_of(version, settings)
    logs = settings.log_dir / model_slug(version.queue)
    folder = settings.runtime_dir / f"{mark(pool)}{mark(version.queue)}"
    environment = {name: value for name, value in environ.items() if name != "PENSTOCK_FAILPOINTS"}
    environment |= {"PENSTOCK_RUNTIME_DIR": str(folder), "PENSTOCK_LOG_DIR": str(logs)}
    if sleep is not None:  # it is told with its beat to drain and to take work again: both are part of a switch
        beat_seconds = min(settings.beat_seconds, _SLEEPERS_BEAT_SECONDS)
        environment |= {**sleep.environment, "PENSTOCK_BEAT_SECONDS": f"{beat_seconds:g}"}
    return MemberLaunch(version.queue, version.model, sleep, tuple(command), environment, folder, logs / "worker.log")


def _sleep_of(version: Version, settings: Settings) -> EngineSleep | None:
    made = version.definition
    profile = PROFILES.get(made.engine)
    sleep = profile.sleep if profile and settings.pool_asleep else None
    return sleep if sleep is not None and has_flag(made.arguments, sleep.flag) else None
