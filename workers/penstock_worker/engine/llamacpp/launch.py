"""How llama.cpp is started: its server on a unix socket, in the worker's own interpreter, which has xllamacpp.

A sequence has a context of its own: `--ctx-size` is, as for `llama-server`, that of all `--parallel` ones together,
and the slots that are kept for waiting calls and overtakers get as much each. So whether a prompt fits does not depend
on what else runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineProfile
from penstock_worker.engine.launch_spec import BadLaunch, Launch, check_socket, engine_environment, slots_for, without
from penstock_worker.engine.llamacpp import arguments as accepted

# A large file is read from a cold disk, or comes from the hub first.
START_TIMEOUT_SECONDS: Final = 1_800.0
_OURS: Final = ("--parallel", "--max-num-seqs", "-np", "--ctx-size", "-c")


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
    """Describe how to start llama.cpp; `source` is a GGUF file, or a hub id that has one.

    It runs in the worker's interpreter whatever `python` says: that one needs a vLLM, not Penstock. Raises BadLaunch.
    """
    check_socket(socket)
    wanted = accepted.read(arguments)
    slots = slots_for(wanted.parallel or accepted.DEFAULT_PARALLEL)
    command = [sys.executable, "-m", "penstock_worker.engine.llamacpp.llamacpp_server"]
    command += ["--model", source, "--served-model-name", model, "--uds", str(socket), "--slots", str(slots.all)]
    if wanted.ctx_size:
        command += ["--slot-tokens", str(wanted.ctx_size // slots.lines)]
    return Launch(
        profile=profile,
        model=model,
        command=(*command, *without(arguments, *_OURS)),
        environment=engine_environment(environ, source) | {"PYTHONUNBUFFERED": "1"},
        socket=socket,
        batch_slots=slots.lines,
        engine_slots=slots.all,
        overtakers=slots.overtakers,
        start_timeout_seconds=START_TIMEOUT_SECONDS,
        build=_build(),
    )


def _build() -> str:
    try:
        return metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        raise BadLaunch("There is no llama.cpp here: install penstock[engine-llamacpp].") from None
