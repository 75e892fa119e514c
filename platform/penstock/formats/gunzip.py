"""Gunzip: gzip inflated as it comes, in pieces of a bounded size, however much a byte of it stands for (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

MAGIC: Final = b"\x1f\x8b"
PIECE_BYTES: Final = 128 * 1024
_GZIP: Final = 31
"""For zlib: a gzip header, and the largest window."""


class Gunzip:
    """One gzip file, which may have several members one after the other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=_GZIP)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes stand for; raises ValueError if they are no gzip."""
        self._begun |= bool(data)
        while True:
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            data = self._member.unconsumed_tail
            if self._member.eof:
                data = self._member.unused_data
                self._member, self._begun = zlib.decompressobj(wbits=_GZIP), bool(data)
            if piece:
                yield piece
            elif not data:
                return

    def end(self) -> None:
        """Raise ValueError if the last member is cut."""
        if self._begun:
            raise ValueError("it is cut")
