"""Redis or Valkey, and the blob store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import redis

from penstock.blobs import readiness
from penstock.blobs.store import Blobs
from penstock.doctor.finding import Finding, failed, ok, skipped, warning, words
from penstock.doctor.surroundings import Surroundings
from penstock.wire import redis_patience

_SECONDS: Final = 3.0
_KEEPS: Final = "noeviction"


def look_at_redis(around: Surroundings) -> Iterator[Finding]:
    """Hints, and cached answers if they are kept elsewhere. Work goes on without."""
    if around.layout is not None:
        yield skipped("redis", "`penstock up` has a Valkey of its own, with a new password at each start")
        return
    yield _redis("redis", around.settings.redis_url, "PENSTOCK_REDIS_URL", keeps=True)
    if around.settings.cache_url:
        yield _redis("cache", around.settings.cache_url, "PENSTOCK_CACHE_URL", keeps=False)


def _redis(name: str, url: str, setting: str, *, keeps: bool) -> Finding:
    slower = "workers ask Postgres for work meanwhile, a little later" if keeps else "answers are not cached meanwhile"
    try:
        client = redis.Redis.from_url(
            url.replace("redis+socket://", "unix://"), decode_responses=True, **redis_patience.options(_SECONDS)
        )
        with client:
            client.ping()
            version, policy = _facts(client)
    except (redis.RedisError, OSError, ValueError) as error:
        return warning(name, f"can't be reached: {words(error)}; {slower}", f"Start it, or mend {setting}.")
    if keeps and policy not in (_KEEPS, ""):
        return warning(
            name, f"{version} may throw hints away (maxmemory-policy {policy})", f"Set maxmemory-policy {_KEEPS}."
        )
    return ok(name, f"{version} answers")


def _facts(client: redis.Redis) -> tuple[str, str]:
    """Its name and version, and what it does when it is full; empty where it does not tell everybody."""
    try:
        about: Any = client.info("server")
        name = "Valkey" if "valkey_version" in about else "Redis"
        version = f"{name} {about.get('valkey_version') or about.get('redis_version')}"
        settings: Any = client.config_get("maxmemory-policy")
        return version, str(settings.get("maxmemory-policy", ""))
    except redis.ResponseError:
        return "it", ""


def look_at_blobs(around: Surroundings) -> Iterator[Finding]:
    """The blob store takes a blob, gives it back and deletes it."""
    name, url = "blobs", around.settings.blob_url
    mend = "Make the bucket, give this key the right to write, read and delete there, or mend PENSTOCK_BLOB_URL."
    shown = url.partition("?")[0]
    if (folder := _folder(url)) and not folder.is_dir():
        parent = next(one for one in folder.parents if one.exists())
        if os.access(parent, os.W_OK):
            yield ok(name, f"{folder} is made when it is needed")
        else:
            said = f"{folder} is not there, and can't be made in {parent}"
            yield failed(name, said, "Make it, or mend PENSTOCK_BLOB_URL.")
        return
    try:
        why: BaseException | None = asyncio.run(readiness.fault(Blobs(url).try_out(f"ready/doctor-{uuid4().hex}"), _SECONDS))
    except Exception as error:  # what an object store's builder says of its address or credentials
        why = error
    if why:
        yield failed(name, f"{shown} does not work: {words(why)}", mend)
    else:
        yield ok(name, f"{shown} takes, gives back and deletes a blob")


def _folder(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
