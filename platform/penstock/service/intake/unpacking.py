"""Unpacking: a batch's file that comes as gzip is kept as what it stands for, so that all that reads it reads lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstock.domain.api_errors import BadRequest
from penstock.formats.gunzip import MAGIC, Gunzip

SUFFIX = ".gz"


class Unpacking:
    """Bytes on their way to `take`; inflated if they begin as gzip does, and that was wanted as they began."""

    def __init__(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._take = take
        self._head: bytes | None = b""
        """What came until it is known what it is; None from then on."""
        self._gunzip: Gunzip | None = None

    @property
    def unpacks(self) -> bool:
        """Whether what came was gzip, and was inflated."""
        return self._gunzip is not None

    async def write(self, piece: bytes, wanted: bool) -> None:
        """Take some bytes on; `wanted`: gzip is to be inflated.

        Raises BadRequest if they are broken gzip, and whatever `take` raises.
        """
        if self._head is not None:
            piece = self._head + piece
            if len(piece) < len(MAGIC):
                self._head = piece
                return
            self._head = None
            if piece.startswith(MAGIC) and wanted:
                self._gunzip = Gunzip()
        if self._gunzip is None:
            await self._take(piece)
            return
        try:
            for inflated in self._gunzip.feed(piece):
                await self._take(inflated)
        except ValueError as error:
            raise _broken(error) from None

    async def end(self) -> None:
        """All has come. Raises BadRequest if it is cut."""
        if self._head:
            await self._take(self._head)
        try:
            if self._gunzip is not None:
                self._gunzip.end()
        except ValueError as error:
            raise _broken(error) from None

    def name(self, filename: str) -> str:
        """What a file of this name is called once it is inflated."""
        return filename[: -len(SUFFIX)] if self.unpacks and filename.lower().endswith(SUFFIX) else filename


def _broken(error: ValueError) -> BadRequest:
    return BadRequest(
        f"The file begins as gzip does, but can't be inflated: {error}.", param="file", code="invalid_gzip"
    )
