"""Whether the blob store works, as it was found half a second ago at most; and its cause, logged when it changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from penstock.blobs.readiness import BlobReadiness
from penstock.blobs.store import Blobs


def test_what_was_found_is_remembered_for_half_a_second_and_each_change_is_logged_once(
    tmp_path: Path,
) -> None:
    now = 0.0
    in_the_way = tmp_path / "ready"
    in_the_way.write_bytes(b"")
    readiness = BlobReadiness(Blobs(f"file://{tmp_path}"), clock=lambda: now)

    async def looks(*moments: float) -> list[bool]:
        nonlocal now
        found = []
        for moment in moments:
            now = moment
            found += await asyncio.gather(readiness.good(), readiness.good())
        return found

    with capture_logs() as said:
        assert asyncio.run(looks(0, 2, 4)) == [False] * 6
        assert [one["event"] for one in said] == ["blob_store_away"], "tried three times, told once"
        assert "Not a directory" in said[0]["error"]
        in_the_way.unlink()
        assert asyncio.run(looks(4.5)) == [False] * 2, "it was tried half a second ago"
        assert asyncio.run(looks(6)) == [True] * 2
        (tmp_path / "ready").rmdir()
        in_the_way.write_bytes(b"")
        assert asyncio.run(looks(6.5)) == [True] * 2, "it was looked at half a second ago"
        assert asyncio.run(looks(7)) == [False] * 2, "a look is enough to see it, long before the next trial"
    assert [one["event"] for one in said] == ["blob_store_away", "blob_store_back", "blob_store_away"]
