"""Sorted records: in order whatever fits into memory, as often as they are asked for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from penstock.service.evals import sorted_records
from penstock.service.evals.sorted_records import SortedRecords


@pytest.mark.parametrize("piece_bytes", [1, 2_000, 10**9])
def test_they_come_by_key_and_equal_keys_as_they_were_added(
    tmp_path: Path, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorted_records, "_MOST_PIECES", 7)
    chance = random.Random(3)
    added = [(b"%d" % chance.randrange(60), b"x" * chance.randrange(30) + b"%d" % n) for n in range(200)]
    found = SortedRecords(tmp_path, "some", piece_bytes)
    for key, value in added:
        found.add(key, value)
    wanted = sorted(added, key=lambda record: record[0])
    assert list(found) == wanted
    assert list(found) == wanted
    assert found.count == 200
    assert len(list(tmp_path.iterdir())) <= 7


def test_none_are_none(tmp_path: Path) -> None:
    assert list(SortedRecords(tmp_path, "none")) == []
