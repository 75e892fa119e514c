"""Sorted records: any number of them in the order of their keys, with flat memory: sorted pieces on disk are merged."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

PIECE_BYTES: Final = 16 * 1024 * 1024
"""In memory at once, before a piece is sorted and written."""
_EACH_BYTES: Final = 200
"""What Python needs for a record beside its bytes, about."""
_MOST_PIECES: Final = 64
"""Pieces that are read at once; more are merged into one first."""
_HEAD: Final = struct.Struct("<II")

Record = tuple[bytes, bytes]


class SortedRecords:
    """Records by key, each with some bytes. Those of equal keys keep the order in which they came."""

    def __init__(self, folder: Path, name: str, piece_bytes: int = PIECE_BYTES) -> None:
        """`folder`: scratch, which its owner removes; `name`: one of its own there."""
        self.count = 0
        self._folder = folder
        self._name = name
        self._piece_bytes = piece_bytes
        self._held: list[Record] = []
        self._held_bytes = 0
        self._pieces: list[Path] = []
        self._written = 0

    def add(self, key: bytes, value: bytes) -> None:
        """One record more."""
        self._held.append((key, value))
        self._held_bytes += len(key) + len(value) + _EACH_BYTES
        self.count += 1
        if self._held_bytes >= self._piece_bytes:
            self._put_away()

    def __iter__(self) -> Iterator[Record]:
        """All of them, in the order of their keys; may be asked again."""
        if not self._pieces:
            self._held.sort(key=lambda record: record[0])
            yield from self._held
            return
        if self._held:
            self._put_away()
        yield from self._merged(self._pieces)

    def _put_away(self) -> None:
        self._held.sort(key=lambda record: record[0])
        self._pieces.append(self._write(iter(self._held)))
        self._held, self._held_bytes = [], 0
        if len(self._pieces) == _MOST_PIECES:
            whole = self._write(self._merged(self._pieces))
            for piece in self._pieces:
                piece.unlink()
            self._pieces = [whole]

    def _merged(self, pieces: list[Path]) -> Iterator[Record]:
        files = [piece.open("rb") for piece in pieces]
        try:
            yield from heapq.merge(*map(_read, files), key=lambda record: record[0])
        finally:
            for file in files:
                file.close()

    def _write(self, records: Iterator[Record]) -> Path:
        path = self._folder / f"{self._name}-{self._written}"
        self._written += 1
        with path.open("wb") as file:
            for key, value in records:
                file.write(_HEAD.pack(len(key), len(value)) + key + value)
        return path


def _read(file: BinaryIO) -> Iterator[Record]:
    while head := file.read(_HEAD.size):
        key, value = _HEAD.unpack(head)
        yield file.read(key), file.read(value)
