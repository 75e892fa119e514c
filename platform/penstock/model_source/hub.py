"""The Hugging Face hub, and its cache on this machine: where a model with an id comes from, and how large it is.

Sources: huggingface_hub 2.4 (`constants.py` for the variables, `HfApi.model_info(files_metadata=True)` for the
request), vLLM 0.32 (`download_weights_from_hf` for which of the weights are loaded).
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx

from penstock.model_source import folder
from penstock.model_source.no_model import NoModel

ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
ANSWER_SECONDS: Final = 10.0
_PATTERNS: Final = ("consolidated*.safetensors", "*.safetensors", "*.bin", "*.pt", "*.gguf")
"""Weights, the first that a repository has; those in its folders are not loaded."""
_SMALL_BYTES: Final = 64 * 1024 * 1024
"""What is no weight and larger than this is none of a config or tokenizer either."""


@dataclass(frozen=True)
class Hub:
    """Where models come from and lie, by an engine's environment."""

    endpoint: str
    token: str | None
    cache: Path
    offline: bool

    def repository(self, id: str) -> Path:
        """The folder of a model in the cache."""
        return self.cache / f"models--{id.replace('/', '--')}"

    def has_all(self, id: str, revision: str, *, config: bool, weights: bool) -> bool:
        """Whether the cache has what an engine needs: then it needs no network."""
        repository = self.repository(id)
        try:
            commit = (repository / "refs" / revision).read_text().strip()
        except OSError:
            commit = revision
        try:
            folder.check(repository / "snapshots" / commit, config=config, weights=weights)
        except NoModel:
            return False
        return True

    def files(self, id: str, revision: str) -> dict[str, int] | None:
        """Names and sizes in bytes of a model's files; None if the hub can't say now.

        Raises NoModel if there is no such model, it is closed to us, or the hub is out of reach.
        """
        if self.offline:
            raise NoModel(
                f"{id} is no folder here, and not (or not all of it) in the cache {self.cache}; HF_HUB_OFFLINE forbids "
                "to ask for it."
            )
        url = f"{self.endpoint}/api/models/{id}/revision/{quote(revision, safe='')}"
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = httpx.get(
                url, params={"blobs": "true"}, headers=headers, timeout=ANSWER_SECONDS, follow_redirects=True
            )
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise NoModel(
                f"{id} is no folder here, not in the cache {self.cache}, and {self.endpoint} can't be reached ({why})."
            ) from None
        if answer.status_code in (401, 404):
            shown = "the token in HF_TOKEN may not see it" if self.token else "it is private: set HF_TOKEN"
            raise NoModel(f"{id} is neither a folder here nor a model at {self.endpoint}, or {shown}.")
        if answer.status_code == 403:
            raise NoModel(f"{id} is closed to you: accept its terms at {self.endpoint}/{id}, and set HF_TOKEN.")
        try:
            found: Any = answer.raise_for_status().json()
            return {str(one["rfilename"]): int(one.get("size") or 0) for one in found["siblings"]}
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError):
            return None


def hub(environ: Mapping[str, str], download_dir: str | None = None) -> Hub:
    """The hub that an engine with this environment asks; `download_dir` is its argument, in place of the cache."""
    home = Path(environ.get("HF_HOME") or Path(_cache_home(environ)) / "huggingface")
    cache = Path(download_dir or environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub")
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or _kept_token(environ, home)
    offline = environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or ""
    endpoint = (environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return Hub(endpoint, token, cache.expanduser(), offline.upper() in ("1", "ON", "YES", "TRUE"))


def _cache_home(environ: Mapping[str, str]) -> str:
    return environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "/"), ".cache")


def _kept_token(environ: Mapping[str, str], home: Path) -> str | None:
    try:
        return Path(environ.get("HF_TOKEN_PATH") or home / "token").read_text().strip() or None
    except OSError:
        return None


def needed_bytes(files: Mapping[str, int], *, weights: bool = True) -> int:
    """What an engine downloads of these files: the weights that it reads, and what is small."""
    top = [name for name in files if "/" not in name]
    read = next((found for pattern in _PATTERNS if (found := fnmatch.filter(top, pattern))), [])
    small = [name for name in top if not name.endswith(folder.WEIGHTS) and files[name] <= _SMALL_BYTES]
    return sum(files[name] for name in {*(read if weights else ()), *small})
