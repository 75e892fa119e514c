"""Kinds: the engines that a worker can own, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from penstock_worker.engine.echo import launch as echo
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.engine.remote import launch as remote
from penstock_worker.engine.vllm import vllm_server

KINDS: Final = {"vllm": vllm_server.launch, "echo": echo.launch, "remote": remote.launch}


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
    """Describe how to start an engine of this kind.

    `model` is the name that clients use, `source` a local folder or a Hugging Face id (of a remote
    one its address), `arguments` the user's
    own (`--engine-arg`), `python` the interpreter to run it in. Raises BadLaunch if that can't work.
    """
    if kind not in KINDS:
        raise BadLaunch(f"No engine is called {kind!r}; there are {', '.join(KINDS)}.")
    return KINDS[kind](model=model, source=source, socket=socket, arguments=arguments, environ=environ, python=python)
