"""How a relay to an engine that runs already is started: supervisor, guard and gate are as for any other engine.

What is known of such an engine is what its profile says. How many requests it takes at once nobody can ask: 128 in all,
unless `--max-num-seqs` says. It has no order of its own that we could set, so an eighth of them are the gate's, for
waiting calls.

    --max-num-seqs N          requests at once, in all
    --key-file PATH           a file with its key, read again when it changes; else PENSTOCK_ENGINE_KEY_FILE names
                              one, or PENSTOCK_ENGINE_KEY is the key
    --ca-file PATH            who may sign its certificate, where that is none of the machine's own authorities
    --priority ORDER          low_first or high_first: it schedules by the `priority` of its requests, in this order
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from penstock.domain.engines.profile import EnginePriority, EngineProfile
from penstock.domain.models.version import has_password
from penstock_worker.engine.launch_spec import (
    BadLaunch,
    Launch,
    check_socket,
    engine_environment,
    number,
    option,
    slots_within,
    without,
)

DEFAULT_SEQS: Final = 128
KEY: Final = "PENSTOCK_ENGINE_KEY"
KEY_FILE: Final = "PENSTOCK_ENGINE_KEY_FILE"
_OPTIONS: Final = ("--max-num-seqs", "--key-file", "--ca-file", "--priority")


def launch(
    *,
    profile: EngineProfile,
    model: str,
    source: str,
    socket: Path,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str],
    python: str,
) -> Launch:
    """Describe how to start the relay; `source` is the engine's address, `model` its name for what it serves.

    It runs in the worker's interpreter whatever `python` says. Raises BadLaunch.
    """
    check_socket(socket)
    root = address(source)
    if others := without(arguments, *_OPTIONS):
        raise BadLaunch(
            f"{others[0]} can't be told to an engine that runs already: {', '.join(_OPTIONS)} are for here."
        )
    profile = _ordered(profile, option(arguments, "--priority"))
    slots = slots_within(number(arguments, "--max-num-seqs") or DEFAULT_SEQS)
    key = {"ENGINE_KEY": environ[KEY]} if environ.get(KEY) else {}
    command = [sys.executable, "-m", "penstock_worker.engine.remote.relay", "--uds", str(socket), "--url", root]
    command += ["--model", model, "--engine", profile.name]
    if key_file := option(arguments, "--key-file") or environ.get(KEY_FILE):
        command += ["--key-file", _file(key_file, "key")]
    if ca_file := option(arguments, "--ca-file"):
        command += ["--ca-file", _authorities(_file(ca_file, "CA"))]
    return Launch(
        profile=profile,
        model=model,
        command=tuple(command),
        environment=engine_environment(environ, "") | {"PYTHONUNBUFFERED": "1"} | key,
        socket=socket,
        batch_slots=slots.lines,
        engine_slots=slots.all,
        overtakers=slots.overtakers,
        start_timeout_seconds=60.0,
    )


def address(source: str) -> str:
    """The address of an engine, without /v1; raise BadLaunch for what is none, or says what all would read."""
    if has_password(source):
        raise BadLaunch(f"A password in the engine's address would be read by all: its key goes into {KEY}.")
    try:
        parts = urlsplit(source)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no number of a port, a bracket that is not closed
        found = False
    if not found or not source.isprintable() or " " in source:
        raise BadLaunch(f"An engine that runs already is named by its http:// or https:// address, not {source!r}.")
    if parts.query or parts.fragment:
        message = f"The engine's address ends with its path, without ? and #: a key that it wants goes into {KEY}."
        raise BadLaunch(message)
    return source.rstrip("/").removesuffix("/v1").rstrip("/")


def _ordered(profile: EngineProfile, order: str | None) -> EngineProfile:
    if order is None:
        return profile
    try:
        return replace(profile, priority=EnginePriority(order))
    except ValueError:
        raise BadLaunch(f"--priority is one of {', '.join(EnginePriority)}, not {order!r}.") from None


def _file(path: str, what: str) -> str:
    found = Path(path).expanduser().resolve()
    if not found.is_file():
        raise BadLaunch(f"There is no {what} file {path}.")
    return str(found)


def _authorities(path: str) -> str:
    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError):
        raise BadLaunch(f"The CA file {path} holds no certificate (PEM).") from None
    return path
