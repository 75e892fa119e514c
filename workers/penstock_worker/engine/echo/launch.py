"""How the echo engine is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.domain.engines import adapter_arguments
from penstock.domain.engines.profile import EngineLack, EngineProfile, read_lacks
from penstock_worker.engine.echo.answers import counted
from penstock_worker.engine.echo.shapes import DEFAULT_SEQS
from penstock_worker.engine.launch_spec import (
    BadLaunch,
    Launch,
    check_socket,
    engine_environment,
    has_flag,
    number,
    option,
    slots_for,
    without,
)
from penstock_worker.engine.token_counter import TokenCounter


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
    """Describe how to start the echo engine; it has no weights, so `source` is not used.

    It runs in the worker's interpreter whatever `python` says: that one needs a vLLM, not Penstock.
    """
    check_socket(socket)
    if has_flag(arguments, "--plays"):
        raise BadLaunch("--plays is for an echo engine that is reached as one that runs elsewhere.")
    try:
        profile = profile.without(*read_lacks(option(arguments, "--lacks") or ""))
    except ValueError:
        raise BadLaunch(f"--lacks takes {', '.join(EngineLack)}, by comma.") from None
    try:
        adapters, most_rank = adapter_arguments.slots(arguments), adapter_arguments.most_rank(arguments)
    except ValueError as error:
        raise BadLaunch(str(error)) from None
    slots = slots_for(number(arguments, "--max-num-seqs") or DEFAULT_SEQS)
    command = [sys.executable, "-m", "penstock_worker.engine.echo.echo_server", "--uds", str(socket), "--model", model]
    command += ["--max-num-seqs", str(slots.all), *without(arguments, "--max-num-seqs")]
    environment = engine_environment(environ, source) | {"PYTHONUNBUFFERED": "1"}
    return Launch(
        profile=profile,
        model=model,
        command=tuple(command),
        environment=environment,
        socket=socket,
        batch_slots=slots.lines,
        engine_slots=slots.all,
        overtakers=slots.overtakers,
        start_timeout_seconds=60.0,
        adapters=adapters,
        most_adapter_rank=most_rank,
        token_counter=TokenCounter(lambda: counted),
    )
