"""Assets: styles, scripts and pictures of the console, each under a name that holds its hash.

Another content has another name, so a browser keeps one for as long as it likes. They are in the package: nothing is
built, and nothing comes from another host. What is not our own lies in `static/vendor/`, listed in its `vendor.toml`.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from penstock.console.navigation import BASE

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".png": "image/png",
}

router = APIRouter()


@dataclass(frozen=True)
class ConsoleAsset:
    """A file of `static/`."""

    name: str
    """With its hash, e.g. `console.1f2e3d4c5b6a.css`."""
    media_type: str
    body: bytes
    packed: bytes
    """Gzipped."""


@cache
def _all() -> dict[str, ConsoleAsset]:
    found: dict[str, ConsoleAsset] = {}
    root = resources.files("penstock.console") / "static"
    for folder in (root, root / "vendor"):
        for file in folder.iterdir():
            path = PurePosixPath(file.name)
            if path.suffix not in _TYPES:
                continue
            body = file.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(body).hexdigest()[:12]}{path.suffix}"
            assert file.name not in found, f"two assets are called {file.name}"
            found[file.name] = ConsoleAsset(name, _TYPES[path.suffix], body, gzip.compress(body, 9, mtime=0))
    return found


@cache
def _by_name() -> dict[str, ConsoleAsset]:
    return {one.name: one for one in _all().values()}


def path_of(file: str) -> str:
    """Where an asset is, below the server's root path; KeyError if there is none such."""
    return f"{BASE}/static/{_all()[file].name}"


@router.get(f"{BASE}/static/{{name}}")
async def asset(request: Request, name: str) -> Response:
    """One of them."""
    found = _by_name().get(name)
    if found is None:
        raise HTTPException(404)
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers={**headers, "content-encoding": "gzip"}, media_type=found.media_type)
    return Response(found.body, headers=headers, media_type=found.media_type)
