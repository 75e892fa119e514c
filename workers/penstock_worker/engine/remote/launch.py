"""How a relay to an engine that runs already is started: supervisor, guard and gate are as for any other engine.

What is known of such an engine is what it tells: its answers, and vLLM's `/metrics` if it has them. How many lines it
takes at once nobody can ask: 128 unless `--max-num-seqs` says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from penstock.domain.engines.profile import EngineProfile
from penstock_worker.engine.launch_spec import (
    BadLaunch,
    Launch,
    check_socket,
    engine_environment,
    number,
    slots_for,
    without,
)

DEFAULT_SEQS: Final = 128
KEY: Final = "PENSTOCK_ENGINE_KEY"


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
    address = urlsplit(source)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise BadLaunch(f"An engine that runs already is named by its http:// or https:// address, not {source!r}.")
    if address.username or address.password:
        raise BadLaunch(f"A password in the engine's address would be read by all: its key goes into {KEY}.")
    if others := without(arguments, "--max-num-seqs"):
        raise BadLaunch(f"{others[0]} can't be told to an engine that runs already: only --max-num-seqs is for here.")
    slots = slots_for(number(arguments, "--max-num-seqs") or DEFAULT_SEQS)
    root = source.rstrip("/").removesuffix("/v1")
    key = {"ENGINE_KEY": environ[KEY]} if environ.get(KEY) else {}
    return Launch(
        profile=profile,
        model=model,
        command=(sys.executable, "-m", "penstock_worker.engine.remote.relay", "--uds", str(socket), "--url", root),
        environment=engine_environment(environ, "") | {"PYTHONUNBUFFERED": "1"} | key,
        socket=socket,
        batch_slots=slots.lines,
        engine_slots=slots.all,
        overtakers=slots.overtakers,
        start_timeout_seconds=60.0,
    )
