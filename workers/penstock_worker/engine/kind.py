"""Kinds: how an engine of each profile is started; a profile names the function that knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from penstock.domain.engines.profile import EngineProfile
from penstock.domain.engines.profiles import PROFILES
from penstock_worker.engine.launch_spec import BadLaunch, Launch


class EngineLaunch(Protocol):
    """Describes one start of an engine. Raises BadLaunch if that can't work."""

    def __call__(
        self,
        *,
        profile: EngineProfile,
        model: str,
        source: str,
        socket: Path,
        arguments: Sequence[str] = (),
        environ: Mapping[str, str],
        python: str,
    ) -> Launch: ...


def launch(
    kind: str,
    *,
    model: str,
    source: str,
    socket: Path,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str],
    python: str,
) -> Launch:
    """Describe how to start an engine of the profile with this name.

    `model` is the name that clients use, `source` what the profile's `source` says: a local folder or a Hugging Face
    id, or an address; `arguments` are the user's own (`--engine-arg`), `python` is the interpreter to run it in. Raises
    BadLaunch if that can't work.
    """
    profile = PROFILES.get(kind)
    if profile is None:
        raise BadLaunch(f"No engine is called {kind!r}; there are {', '.join(PROFILES)}.")
    describe = starter(profile)
    return describe(
        profile=profile,
        model=model,
        source=source,
        socket=socket,
        arguments=arguments,
        environ=environ,
        python=python,
    )


def starter(profile: EngineProfile) -> EngineLaunch:
    """The function that describes a start of such an engine; its module is imported now."""
    module, _, name = profile.launch.partition(":")
    return cast(EngineLaunch, getattr(import_module(module), name))
