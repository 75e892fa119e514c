"""Blobs in S3 or on disk: the same bytes, also where the object store said nothing for half a minute in the middle."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from e2e.external import S3, s3
from e2e.live import chat, jsonl, until
from faults.house import House

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

LINES = 20_000
FROZEN_SECONDS = 30
OWN = re.compile(rb"batch_req_\w+|chatcmpl-\w+|\"request_id\":\"\w+\"|\"created\":\d+")
"""What no two batches share: ids that are drawn, and the time at which the engine started."""


@pytest.fixture(scope="module")
def store(short_dir: Path) -> Iterator[S3]:
    with s3(short_dir) as one:
        yield one


@pytest.fixture(scope="module")
def data() -> bytes:
    """20,000 lines of which each hundredth is refused."""
    return jsonl([chat(f"{n}", f"question {n} é" + " [[status 400]]" * (n % 100 == 7)) for n in range(LINES)])


@pytest.fixture(scope="module")
def on_disk(
    postgres_url: str, shared_database_url: str, valkey_url: str, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    """Output and error file of a house with its blobs in a folder."""
    with House(shared_database_url, valkey_url, tmp_path_factory.mktemp("disk")) as house:
        return through(house, data, "disk")


def through(house: House, data: bytes, name: str) -> tuple[bytes, bytes]:
    """Output and error file of a batch of this data, but for what is each batch's own."""
    begin = time.monotonic()
    batch = house.client.submit(data)
    return files(house, batch.id, name, begin)


def files(house: House, id: str, name: str, begin: float) -> tuple[bytes, bytes]:
    batch = house.client.ended(id, 600)
    print(f"\n{name}: {LINES:,} lines in {time.monotonic() - begin:.1f} s, upload and results included")
    assert batch.status == "completed"
    content = [
        house.client.sdk.files.content(file or "").content for file in (batch.output_file_id, batch.error_file_id)
    ]
    print(*(f"{len(one):,} bytes, {hashlib.sha256(OWN.sub(b'', one)).hexdigest()}" for one in content), sep="\n")
    output, errors = (OWN.sub(b"", one) for one in content)
    assert (output.count(b"\n"), errors.count(b"\n")) == (LINES - LINES // 100, LINES // 100)
    return output, errors


def test_a_large_batch_has_the_same_bytes_through_s3_and_through_disk(
    store: S3, on_disk: tuple[bytes, bytes], data: bytes, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with House(database_url, redis_url, tmp_path, environment=store.environment, blob_url=store.url) as house:
        assert through(house, data, "S3") == on_disk


def test_the_same_bytes_come_when_s3_is_frozen_for_half_a_minute_and_health_names_it_within_three_seconds(
    store: S3, on_disk: tuple[bytes, bytes], data: bytes, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with House(database_url, redis_url, tmp_path, environment=store.environment, blob_url=store.url) as house:
        begin = time.monotonic()
        id = house.client.submit(data).id
        house.client.watched(id, lambda seen: bool(seen.request_counts and seen.request_counts.completed), "some lines")

        def missing() -> list[str]:
            asked = time.monotonic()
            told: list[str] = httpx.get(f"{house.url}/health/ready", timeout=20, trust_env=False).json()["missing"]
            longest.append(time.monotonic() - asked)
            return told

        longest: list[float] = []
        assert missing() == []
        with store.frozen():
            frozen = time.monotonic()
            until(lambda: missing() == ["blobs"], "it says that the blobs are away", 20)
            named = time.monotonic() - frozen
            while time.monotonic() - frozen < FROZEN_SECONDS:
                assert missing() == ["blobs"], "it said that they are back while they were not"
            recorded = house.client.sdk.batches.retrieve(id).request_counts
        thawed = time.monotonic()
        until(lambda: missing() == [], "it says that all is well", 20)
        print(f"\nnamed after {named:.2f} s, longest answer of health {max(longest):.2f} s, "
              f"well again after {time.monotonic() - thawed:.2f} s, {recorded}")  # fmt: skip
        assert named < 3
        assert files(house, id, f"S3, frozen for {FROZEN_SECONDS} s", begin) == on_disk
