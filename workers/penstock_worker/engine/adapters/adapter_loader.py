"""The adapter loader: checks an adapter's files, keeps a copy that nobody changes, and has the engine load that.

The engine's prefix cache tells adapters by name and path, so each version has a name and a path of its own, and what is
at that path never changes: a copy in the worker's folder, by digest. It reaches the engine over its private socket.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock.domain.adapter import AdapterFault, AdapterSource
from penstock.model_source import adapter_folder, hub
from penstock.model_source.no_model import NoModel
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineTimeout
from penstock_worker.engine.launch_spec import Launch

log = structlog.get_logger()

_LOAD_SECONDS: Final = 300.0
_MOST_WORDS: Final = 300


class AdapterLoader:
    """Loads into one engine, and unloads; on its client's loop."""

    def __init__(
        self,
        launch: Launch,
        client: EngineClient,
        folder: Path,
        base_source: str,
        source: Callable[[str], Awaitable[AdapterSource]],
        loaded: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """`folder` is for copies; `source` says where an adapter comes from, `loaded` notes its digest; both raise
        AdapterFault.
        """
        self._launch = launch
        self._client = client
        self._folder = folder
        self._base_source = base_source
        self._source = source
        self._loaded = loaded
        shutil.rmtree(folder, ignore_errors=True)  # of a process before this one

    async def load(self, id: str) -> str:
        """Load an adapter; its name in the engine. Raises AdapterFault, EngineGone and EngineTimeout."""
        began, source = time.monotonic(), await self._source(id)
        try:
            digest, place = await asyncio.to_thread(self._kept, source)
        except NoModel as error:
            raise AdapterFault(str(error)) from None
        except OSError as error:
            raise AdapterFault(f"The adapter {id} can't be copied: {error.strerror}.") from None
        await self._loaded(id, digest)
        name = source.engine_name(digest)
        path = self._launch.profile.adapters
        assert path is not None, "its launch has room for adapters"
        answer = await self._post(path, {"lora_name": name, "lora_path": str(place)})
        if answer.status != 200 and not _is_there(answer):
            raise AdapterFault(f"The engine does not load the adapter {id}: {_words(answer)}")
        log.info("adapter_loaded", adapter=id, name=name, seconds=round(time.monotonic() - began, 3))
        return name

    async def unload(self, name: str) -> None:
        """Unload one. Raises AdapterFault, EngineGone and EngineTimeout."""
        path = (self._launch.profile.adapters or "").replace("load", "unload")
        answer = await self._post(path, {"lora_name": name})
        if answer.status not in (200, 404):
            raise AdapterFault(f"The engine does not let go of the adapter {name}: {_words(answer)}")
        await asyncio.to_thread(shutil.rmtree, self._folder / _file_name(name), True)
        log.info("adapter_unloaded", name=name)

    async def _post(self, path: str, body: Mapping[str, str]) -> EngineAnswer:
        try:
            return await self._client.ask(path, msgspec.json.encode(body), _LOAD_SECONDS)
        except EngineTimeout as error:
            raise AdapterFault(f"The engine did not answer within {_LOAD_SECONDS:.0f} s: {error}") from None

    def _kept(self, source: AdapterSource) -> tuple[str, Path]:
        """A checked copy and its digest. Raises NoModel and OSError."""
        files = adapter_folder.check(self._place(source))
        digest = adapter_folder.digest(files, source.base)
        if source.digest not in (None, digest):
            raise NoModel(
                f"The files of {files.folder} are not those that the adapter {source.id} was made of: add them as a "
                "version of their own."
            )
        adapter_folder.check_fits(files, self._base_source, self._launch.most_adapter_rank)
        place = self._folder / _file_name(source.engine_name(digest))
        made = place.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        for name in (adapter_folder.CONFIG, adapter_folder.WEIGHTS):
            shutil.copyfile(files.folder / name, made / name)
        copied = adapter_folder.check(made)
        if adapter_folder.digest(copied, source.base) != digest:
            raise NoModel(f"The files of {files.folder} changed while they were copied.")
        shutil.rmtree(place, ignore_errors=True)
        os.rename(made, place)
        return digest, place

    def _place(self, source: AdapterSource) -> Path:
        """A folder that can be seen, or what the hub's cache has of an id, which is filled if that is allowed."""
        path = Path(source.source)
        if path.is_absolute() or path.exists() or not hub.ID.fullmatch(source.source):
            return path
        try:
            from huggingface_hub import snapshot_download

            wanted = [adapter_folder.CONFIG, adapter_folder.WEIGHTS]
            cache = hub.hub(self._launch.environment).cache
            return Path(snapshot_download(source.source, allow_patterns=wanted, cache_dir=cache))
        except ImportError:
            raise NoModel(f"{source.source} can't be fetched: huggingface_hub is not installed here.") from None
        except Exception as error:  # its errors have no common root
            why = str(error).partition("\n")[0][:_MOST_WORDS]
            raise NoModel(f"The adapter {source.source} can't be fetched: {why or type(error).__name__}") from None


def _file_name(name: str) -> str:
    """A folder's name for what an engine calls it; names of models may have slashes."""
    return name.replace("/", "--")


def _is_there(answer: EngineAnswer) -> bool:
    """Loaded before, by a request whose answer did not reach us."""
    return answer.status == 400 and b"already been" in answer.body


def _words(answer: EngineAnswer) -> str:
    try:
        said = msgspec.json.decode(answer.body)
        words = said["error"]["message"] if isinstance(said.get("error"), dict) else said["message"]
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        words = f"it answered {answer.status}"
    return " ".join(str(words).split())[:_MOST_WORDS]
