"""How `transformers serve` is started, in the worker's own interpreter, which has transformers and accelerate.

With continuous batching, and with a bound on its cache, without which it takes what memory there is (measured: past 14
GB for a model of 4 MB): 256 blocks of 128 tokens, 256 tokens a step; 612 MB for the tiny model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineProfile
from penstock_worker.engine.launch_spec import (
    BadLaunch,
    Launch,
    check_socket,
    engine_environment,
    has_flag,
    number,
    slots_for,
    without,
)

DEFAULT_SEQS: Final = 16
# Some twenty seconds of imports; a large model takes long from a cold disk.
START_TIMEOUT_SECONDS: Final = 1_800.0
_OURS: Final = ("--host", "--port", "--uds", "--model", "--served-model-name", "--enable-cors", "--non-blocking")
_BOUNDS: Final = {"--cb-num-blocks": "256", "--cb-block-size": "128", "--cb-max-batch-tokens": "256"}
_ITS_OWN: Final = ("--cb-num-blocks", "--cb-max-memory-percent")
_NEEDED: Final = ("transformers", "torch", "accelerate")


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
    """Describe how to start it; the user's arguments are `transformers serve`'s, and `--max-num-seqs` is how many
    requests it gets at once. It runs in the worker's interpreter whatever `python` says. Raises BadLaunch.
    """
    check_socket(socket)
    if taken := [name for name in _OURS if has_flag(arguments, name)]:
        raise BadLaunch(f"{', '.join(taken)} can't be given to the engine: Penstock sets it.")
    if odd := next((mark for mark in "@:" if mark in source), None):
        raise BadLaunch(f"`transformers serve` takes no model whose name has {odd!r} in it: {source}")
    slots = slots_for(number(arguments, "--max-num-seqs") or DEFAULT_SEQS)
    command = [sys.executable, "-m", "penstock_worker.engine.transformers.socket_server"]
    command += ["--model", source, "--served-model-name", model, "--uds", str(socket), "--continuous-batching"]
    if not has_flag(arguments, *_ITS_OWN):
        command += [part for name in _BOUNDS if not has_flag(arguments, name) for part in (name, _BOUNDS[name])]
    if not has_flag(arguments, "--log-level"):
        command += ["--log-level", "error"]  # else a line of log per request
    environment = engine_environment(environ, source) | {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1"}
    if Path(source).is_dir():
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return Launch(
        profile=profile,
        model=model,
        command=(*command, *without(arguments, "--max-num-seqs")),
        environment=environment,
        socket=socket,
        batch_slots=slots.lines,
        engine_slots=slots.all,
        overtakers=slots.overtakers,
        start_timeout_seconds=START_TIMEOUT_SECONDS,
        build=_build(),
    )


def _build() -> str:
    try:
        return " ".join(f"{name} {metadata.version(name)}" for name in _NEEDED)
    except metadata.PackageNotFoundError as error:
        raise BadLaunch(f"There is no {error.name} here: install penstock[engine-transformers].") from None
