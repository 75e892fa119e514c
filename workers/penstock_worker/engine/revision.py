"""Revisions: what makes an engine's answers its own. Two engines with one revision would answer a request alike.

A hash over the kind of engine and its version, the model's files, the arguments and vLLM's environment. A folder counts
by its files' names, sizes and times (to the second, which copies keep); a model from Hugging Face by the commit that
lies in the local cache. What can't be known gives no revision, and then nothing is shared. Adapters that the worker
loads have digests of their own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineSource
from penstock_worker.engine.launch_spec import Launch, option, without

# How much runs at once and where it listens is no part of an answer.
_IDLE: Final = frozenset({
    "--uds", "--max-num-seqs", "--slots", "--max-loras", "--max-cpu-loras", "--journal", "--latency-ms", "--jitter",
    "--itl-ms", "--kv-usage", "--preemptions",
})  # fmt: skip
_FROM_HUB: Final = (EngineSource.MODEL, EngineSource.GGUF)
LOADS_ADAPTERS: Final = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""An engine that was told so may change while it runs, unless nobody but its worker loads what."""
_IDLE_VARIABLES: Final = frozenset({"VLLM_CPU_KVCACHE_SPACE", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"})
"""How much memory and how long a connection: the first is what was free at the start, unless somebody names it."""
_PIECES: Final = re.compile(r"[=,\"]")
_MOST_FILES: Final = 10_000


def of(launch: Launch) -> str:
    """The revision of an engine that is started so, now; empty if it can't be known."""
    if launch.profile.is_elsewhere:  # whoever runs it may change it
        return ""
    if launch.others_load or (not launch.adapters and launch.environment.get(LOADS_ADAPTERS, "0") not in ("0", "")):
        return ""
    arguments = without(launch.command[1:], *_IDLE)
    source = option(arguments, "--model") or ""
    parts = [launch.profile.name, launch.build, *arguments]
    parts += sorted(
        f"{name}={value}"
        for name, value in launch.environment.items()
        if name.startswith("VLLM_") and name not in _IDLE_VARIABLES
    )
    if launch.profile.source in _FROM_HUB and not Path(source).exists():
        commit = option(arguments, "--revision") or ""
        commit = commit if re.fullmatch(r"[0-9a-f]{40}", commit) else _cached_commit(source, commit, launch.environment)
        if not commit:
            return ""
        parts.append(commit)
    try:
        for path in _paths(arguments):
            parts += _seen(path)
    except OSError:
        return ""
    hash = hashlib.blake2b(digest_size=16)
    for part in parts:
        hash.update(b"%d:%b" % (len(part.encode()), part.encode()))
    return hash.hexdigest()


def _paths(arguments: list[str]) -> list[Path]:
    """Every file and folder that an argument names: the model, adapters, a chat template."""
    pieces = {piece for argument in arguments for piece in (argument, *_PIECES.split(argument)) if "/" in piece}
    return sorted(path for piece in pieces if len(piece) < 4_096 and (path := Path(piece)).exists())


def _seen(path: Path) -> Iterator[str]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    if len(files) > _MOST_FILES:
        raise OSError(f"{path} holds more than {_MOST_FILES} files")
    for file in files:
        stat = file.stat()
        yield f"{file.relative_to(path)} {stat.st_size} {int(stat.st_mtime)}"


def _cached_commit(name: str, revision: str, environment: Mapping[str, str]) -> str:
    """The commit of a model in Hugging Face's cache, where its branches are files."""
    home = Path(environment.get("HF_HOME") or Path(environment.get("HOME", "/")) / ".cache/huggingface")
    hub = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    name = name.partition(":")[0]
    try:
        return (hub / f"models--{name.replace('/', '--')}" / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        return ""
