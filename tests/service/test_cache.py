"""The shared cache gives back exactly what was stored, to its owner alone; whatever is wrong with it is a miss."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import redis as redis_client
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.wire.cache import AsyncCache, Bounds, Cache, Entry, key_of, pack, unpack

# A real Redis has all the time that it takes on a busy machine; one that is frozen is not waited for.
BOUNDS = Bounds(answer_bytes=64 * 1024, all_bytes=1024 * 1024, ttl_seconds=60, timeout_seconds=10.0)
HASTY = replace(BOUNDS, timeout_seconds=0.1)
KEY = key_of("a", "m", "r", b"f" * 16)


@pytest.fixture
def server(redis_url: str) -> Iterator[redis_client.Redis]:
    with redis_client.Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def opened(url: str, bounds: Bounds = BOUNDS, clock: Callable[[], float] = time.monotonic) -> Iterator[Cache]:
    cache = Cache(url, bounds, clock=clock)
    try:
        yield cache
    finally:
        cache.close()


def stored(url: str, *entries: Entry, bounds: Bounds = BOUNDS) -> None:
    """Stored by the time this returns: a cache that closes stores what waits."""
    with opened(url, bounds) as cache:
        for entry in entries:
            cache.keep(entry)


def keys(count: int) -> list[bytes]:
    return [key_of("a", "m", "r", b"%d" % number) for number in range(count)]


def test_an_answer_is_found_as_it_was_stored(redis_url: str) -> None:
    bodies = {key: os.urandom(50) + b"answer" * 100 for key in keys(300)}
    stored(redis_url, *(Entry(key, body, None) for key, body in bodies.items()))
    with opened(redis_url) as cache:
        assert cache.get([*bodies, KEY]) == [*bodies.values(), None]
        assert cache.get([]) == []


def test_an_answer_that_is_stored_again_takes_the_place_of_the_first(
    redis_url: str, server: redis_client.Redis
) -> None:
    stored(redis_url, Entry(KEY, b"old", None))
    held = server.get(b"{penstock-cache}bytes")
    stored(redis_url, Entry(KEY, b"new", None))
    with opened(redis_url) as cache:
        assert cache.get([KEY]) == [b"new"]
    assert server.get(b"{penstock-cache}bytes") == held


def test_neither_tenants_nor_models_nor_revisions_share_a_key() -> None:
    parts = [("a", "m", "r"), ("b", "m", "r"), ("a", "n", "r"), ("a", "m", "s"), ("am", "", "r"), ("", "am", "r")]
    assert len({key_of(*part, b"f") for part in parts}) == len(parts)
    assert len({key_of("a", "m", "r", b"f"), key_of("a", "m", "rf", b""), key_of("a", "mr", "", b"f")}) == 3


@given(st.binary(max_size=200))
def test_only_what_was_packed_is_unpacked(value: bytes) -> None:
    assert unpack(KEY, pack(KEY, value), 200) == value
    assert unpack(KEY, value, 200) is None
    assert unpack(key_of("b", "m", "r", b"f" * 16), pack(KEY, value), 200) is None


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
@example(18, 157)  # zlib's header with another level, which unpacks to the same
def test_a_value_that_was_changed_anywhere_is_none(place: int, by: int) -> None:
    value = bytearray(pack(KEY, b"the answer, the whole answer and nothing but the answer"))
    value[place % len(value)] ^= by
    assert unpack(KEY, bytes(value), 1_000) is None
    assert unpack(KEY, bytes(value[: place % len(value)]), 1_000) is None


def test_a_value_that_unpacks_to_more_than_may_be_is_none() -> None:
    assert unpack(KEY, pack(KEY, bytes(10_000_000)), 1_000) is None


def test_a_corrupt_value_is_a_miss(redis_url: str, server: redis_client.Redis) -> None:
    stored(redis_url, Entry(KEY, b"good", None))
    server.set(KEY, b"\x01 rubbish")
    with opened(redis_url) as cache:
        assert cache.get([KEY]) == [None]
    server.delete(KEY)
    server.rpush(KEY, b"a list")
    with opened(redis_url) as cache:
        assert cache.get([KEY]) == [None]


def test_each_entry_has_its_end(redis_url: str, server: redis_client.Redis) -> None:
    one, other = keys(2)
    stored(redis_url, Entry(one, b"1", None), Entry(other, b"2", 7))
    assert 50 < server.ttl(one) <= 60
    assert 0 < server.ttl(other) <= 7


def test_all_entries_together_stay_below_the_bound_and_the_first_to_end_go_first(
    redis_url: str, server: redis_client.Redis
) -> None:
    every = keys(40)
    entries = [Entry(key, os.urandom(40_000), 60 + place) for place, key in enumerate(every)]
    stored(redis_url, *entries)
    held = [place for place, key in enumerate(every) if server.exists(key)]
    assert held == list(range(held[0], 40))
    assert 20 <= len(held) <= 26
    counted = int(server.get(b"{penstock-cache}bytes") or 0)
    assert sum(server.memory_usage(every[place]) or 0 for place in held) <= counted <= BOUNDS.all_bytes
    assert server.zcard(b"{penstock-cache}by-end") == server.hlen(b"{penstock-cache}sizes") == len(held)


def test_what_ended_makes_room(redis_url: str, server: redis_client.Redis) -> None:
    one, other = keys(2)
    stored(redis_url, Entry(one, os.urandom(40_000), 1))
    deadline = time.monotonic() + 10
    while server.exists(one) or server.time()[0] < int(server.zscore(b"{penstock-cache}by-end", one) or 0):
        assert time.monotonic() < deadline
    stored(redis_url, Entry(other, b"x", None))
    assert int(server.get(b"{penstock-cache}bytes") or 0) < 1_000


def test_a_count_that_was_lost_or_is_wrong_heals(redis_url: str, server: redis_client.Redis) -> None:
    server.set(b"{penstock-cache}bytes", 10**9)
    stored(redis_url, Entry(KEY, b"good", None))
    with opened(redis_url) as cache:
        assert cache.get([KEY]) == [b"good"]
    assert int(server.get(b"{penstock-cache}bytes") or 0) < 1_000


def test_an_answer_that_is_too_large_is_not_stored(redis_url: str, server: redis_client.Redis) -> None:
    stored(redis_url, Entry(KEY, bytes(BOUNDS.answer_bytes + 1), None))
    assert server.dbsize() == 0


@contextmanager
def frozen() -> Iterator[str]:
    """A Redis that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_a_frozen_redis_is_a_miss_within_the_bound_and_soon_not_asked_at_all() -> None:
    with frozen() as url, opened(url, HASTY) as cache:
        times = []
        for _ in range(5):
            began = time.monotonic()
            assert cache.get([KEY] * 1_000) == [None] * 1_000
            times.append(time.monotonic() - began)
    assert all(seconds < 1.0 for seconds in times), times
    assert all(seconds < 0.05 for seconds in times[3:]), times  # three failures open the breaker


def test_a_frozen_redis_is_a_miss_for_a_waiting_call_too() -> None:
    async def ask(url: str) -> list[float]:
        cache, times = AsyncCache(url, HASTY), []
        for _ in range(5):
            began = time.monotonic()
            assert await cache.get(KEY) is None
            cache.keep(Entry(KEY, b"x", None))
            times.append(time.monotonic() - began)
        await cache.close()
        return times

    with frozen() as url:
        times = asyncio.run(ask(url))
    assert all(seconds < 0.5 for seconds in times), times
    assert times[-1] < 0.05


def test_an_absent_redis_is_a_miss_and_is_asked_again_when_it_may_be_back(redis_url: str) -> None:
    now = 0.0
    stored(redis_url, Entry(KEY, b"good", None))
    with opened(redis_url, clock=lambda: now) as cache:
        back = cache._redis
        cache._redis = redis_client.Redis(port=1, socket_timeout=0.1, socket_connect_timeout=0.1)
        for _ in range(4):
            assert cache.get([KEY]) == [None]
        cache._redis.close()
        cache._redis = back
        assert cache.get([KEY]) == [None]
        now = 6.0
        assert cache.get([KEY]) == [b"good"]


def test_waiting_calls_and_lines_share_answers(redis_url: str) -> None:
    async def share() -> bytes | None:
        cache = AsyncCache(redis_url, BOUNDS)
        cache.keep(Entry(KEY, b"of a call", None))
        await cache.close()
        cache = AsyncCache(redis_url, BOUNDS)
        found = await cache.get(KEY)
        await cache.close()
        return found

    assert asyncio.run(share()) == b"of a call"
    with opened(redis_url) as cache:
        assert cache.get([KEY]) == [b"of a call"]
