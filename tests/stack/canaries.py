"""Canaries: words that nobody else says, and everywhere on a running platform where one may have got to."""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import redis
from e2e.live import Platform
from psycopg import sql

from penstock.stack import postgres

Places = dict[str, set[str]]


def found(platform: Platform, canaries: Mapping[str, str]) -> Places:
    """In which places each canary is, by its name."""
    places: Places = defaultdict(set)
    for place, content in everything(platform):
        for name, word in canaries.items():
            if word.encode() in content:
                places[name].add(place)
    return places


def everything(platform: Platform) -> Iterator[tuple[str, bytes]]:
    """Every place, as often as it has pieces, and what is in it."""
    yield "output of up", platform.data.with_suffix(".out").read_bytes()
    yield from _files(platform.data)
    yield from _files(platform.runtime, "runtime ")
    yield from _tables(platform)
    yield from _valkey(platform)
    yield from _processes(platform)


def _files(folder: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            parts = file.relative_to(folder).parts
            name = f"{parts[0]}/{file.stem}" if parts[0] == "logs" else parts[0]
            yield f"file {prefix}{name}", file.read_bytes()


def _tables(platform: Platform) -> Iterator[tuple[str, bytes]]:
    """Every value of every column of every table, in clear; and what the server says that it runs."""
    with psycopg.connect(postgres.url(platform.runtime / "postgres")) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        for (table,) in tables:
            rows = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))
            columns = [column.name for column in rows.description or ()]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    yield f"table {table}.{column}", value if isinstance(value, bytes) else str(value).encode()
        for (query,) in connection.execute("select query from pg_stat_activity"):
            yield "queries that run", str(query).encode()


def _valkey(platform: Platform) -> Iterator[tuple[str, bytes]]:
    url = platform.child("api").environ()["PENSTOCK_REDIS_URL"]
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            yield "valkey", key
            yield "valkey", client.dump(key) or b""
            match client.type(key):
                case b"list":
                    yield "valkey", b"".join(client.lrange(key, 0, -1))
                case b"hash":
                    yield "valkey", b"".join(part for pair in client.hgetall(key).items() for part in pair)
                case b"string":
                    yield "valkey", _unpacked(client.get(key) or b"")


def _unpacked(value: bytes) -> bytes:
    """A value, and behind it what is compressed in it: a cached answer is, behind its hash."""
    _, mark, packed = value.partition(b"\x78\x01")
    with suppress(zlib.error):
        return value + zlib.decompressobj().decompress(mark + packed)
    return value


def _processes(platform: Platform) -> Iterator[tuple[str, bytes]]:
    up = psutil.Process(platform.process.pid)
    for process in [up, *up.children(recursive=True)]:
        name = "up" if process == up else Path(os.readlink(f"/proc/{process.pid}/fd/1")).stem
        for part in ("cmdline", "environ"):
            yield f"{part} of {name}", Path(f"/proc/{process.pid}/{part}").read_bytes()
