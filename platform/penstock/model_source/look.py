"""The look at a model's source before an engine is started with it: its files, or the cache and the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock.domain.engines.profile import EngineSource
from penstock.model_source import folder, gguf, gguf_hub, hub
from penstock.model_source.download import Download
from penstock.model_source.no_model import NoModel


def look(
    source: str, arguments: Sequence[str], environ: Mapping[str, str], kind: EngineSource = EngineSource.MODEL
) -> Download | None:
    """Raise NoModel if an engine that loads this kind of source can't load it; what it will have to download, if
    anything.

    `arguments` and `environ` are the engine's. Takes milliseconds for a folder and for what is in the cache; else one
    request to the hub, ten seconds at most. What only the engine can judge (object stores, GGUF files, other hubs) is
    left to it.
    """
    if kind is EngineSource.GGUF:
        return _of_gguf(source, arguments, environ)
    if kind is not EngineSource.MODEL:
        return None
    config = _value(arguments, "--hf-config-path") is None
    weights = _value(arguments, "--load-format") in (None, "auto", "safetensors", "hf")
    path = _place(source)
    if path and path.is_dir():
        folder.check(path, config=config, weights=weights)
        return None
    if (
        (path and path.is_file())
        or "://" in source
        or ":" in source
        or environ.get("VLLM_USE_MODELSCOPE", "0") not in ("", "0")
    ):
        return None
    if source.endswith(".gguf"):
        raise NoModel(f"There is no file {source}.")
    if not hub.ID.fullmatch(source):
        raise NoModel(f"There is no model folder {source}: give a folder or a Hugging Face id.")
    return _of_hub(source, arguments, environ, config, weights)


def _place(source: str) -> Path | None:
    """The file or folder that a source names; None if there is none, or can be none: a name of 5,000 characters."""
    found = os.path.expanduser(source)
    return Path(found) if os.path.exists(found) else None


def _of_gguf(source: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Download | None:
    path = _place(source)
    if path and path.is_dir():
        files = sorted(file.name for file in path.glob(f"*{gguf.SUFFIX}"))
        what = f"name a file in it: {', '.join(files[:3])}" if files else f"there is no *{gguf.SUFFIX} in it"
        raise NoModel(f"{source} is a folder, and llama.cpp reads a GGUF file; {what}.")
    if path and path.exists():
        gguf.read(path)
        return None
    if source.endswith(gguf.SUFFIX):
        raise NoModel(f"There is no file {source}.")
    return gguf_hub.look(source, _value(arguments, "--hf-file"), _value(arguments, "--revision"), environ)


def _of_hub(
    id: str, arguments: Sequence[str], environ: Mapping[str, str], config: bool, weights: bool
) -> Download | None:
    place = hub.hub(environ, _value(arguments, "--download-dir"))
    revision = _value(arguments, "--revision") or "main"
    if place.has_all(id, revision, config=config, weights=weights):
        return None
    files = place.files(id, revision)
    if files is None:
        return Download(id, place.repository(id) / "blobs", None)
    if config and not any(name in files for name in folder.CONFIGS):
        raise NoModel(f"{id} at {place.endpoint} is no model that vLLM can load: there is no config.json in it.")
    download = Download(id, place.repository(id) / "blobs", hub.needed_bytes(files, weights=weights))
    download.check_room()
    return download


def _value(arguments: Sequence[str], name: str) -> str | None:
    """The value of an engine's option, the last one if it stands there twice."""
    value = None
    for place, argument in enumerate(arguments):
        flag, equals, attached = argument.partition("=")
        if flag.replace("_", "-") == name:
            value = attached if equals else next(iter(arguments[place + 1 : place + 2]), None)
    return value
