"""Uploads: bytes stream to their final key while they are counted and hashed; what makes them visible comes last.

A cut upload leaves an intent row and perhaps a blob that nobody can name; both are taken away here or by a sweep.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import structlog

from penstock.blobs.store import Blobs, away_is_unavailable
from penstock.domain.api_errors import Conflict, NotFound, PenstockError, TooLarge, Unavailable
from penstock.domain.file import File
from penstock.domain.idempotency import Once, SdkCreate, fingerprint_of, key_of
from penstock.domain.limits.limit import LimitName
from penstock.failpoint import failpoint
from penstock.service.core import audit, cursor, unheard_creates
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.limits import kept
from penstock.settings.limits import LimitSettings
from penstock.store.batches import files
from penstock.store.cursors import Listed

log = structlog.get_logger()
R = TypeVar("R")

PARAMS: Final = {"file": "file", "part": "data"}
"""Where each comes in its request."""
PIECE_BYTES: Final = 128 * 1024
"""What waits here for each upload: small, since hundreds may be slow at once."""


@dataclass(frozen=True)
class Sealed:
    """Bytes that are whole in the blob store and not yet visible."""

    key: str
    size_bytes: int
    sha256: bytes


class Upload:
    """Bytes on their way to the blob store: `async with`, which discards what was not published."""

    def __init__(
        self, db: AsyncDatabase, blobs: Blobs, tenant: str, max_bytes: int, what: Literal["file", "part"] = "file"
    ) -> None:
        self.key = blob_key(tenant, f"{what}s")
        self._what = what
        self._db = db
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._piece = bytearray()
        self._discard = True
        self._writer: Any = None

    async def __aenter__(self) -> Self:
        await self._db.run(_intend, self.key)
        with away_is_unavailable():
            self._writer = self._blobs.open_upload(self.key)
        return self

    @property
    def sha256(self) -> bytes:
        """Of what has come so far."""
        return self._sha256.digest()

    async def write(self, data: bytes) -> None:
        """Take some bytes; raise TooLarge once there are more than the limit."""
        self._size += len(data)
        if self._size > self._max_bytes:
            raise TooLarge(f"The {self._what} is larger than {self._max_bytes} bytes.", param=PARAMS[self._what])
        self._sha256.update(data)
        self._piece += data
        if len(self._piece) >= PIECE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        if self._piece:
            with away_is_unavailable():
                await self._writer.write(bytes(self._piece))
            self._piece.clear()
            failpoint("upload.writing")

    async def publish(self, make_visible: Callable[[Transaction, Sealed], tuple[R, bool]]) -> R:
        """Complete the blob and run the transaction that names it; it says what it made, and if it took the blob."""
        await self._flush()
        with away_is_unavailable():
            await self._writer.close()
        sealed = Sealed(self.key, self._size, self.sha256)
        self._discard = False  # from here on its row may be committed, even if nobody lives to hear it
        try:
            made, taken = await self._db.run(make_visible, sealed)
        except PenstockError as error:
            self._discard = not isinstance(error, Unavailable)
            raise
        self._discard = not taken
        return made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer = None  # an open writer that is dropped makes nothing visible
        if self._discard:
            await asyncio.shield(discard(self._db, self._blobs, self.key))


async def discard(db: AsyncDatabase, blobs: Blobs, key: str) -> None:
    """Doom a blob that no row names, delete it, forget it; what fails here is left to the sweep."""
    try:
        await db.run(_doom, key)
        with away_is_unavailable():
            await asyncio.to_thread(blobs.delete, key)
        await db.run(_forget, key)
    except (PenstockError, OSError) as error:
        log.warning("blob_left_to_the_sweep", key=key, error=str(error))


def publish_file(
    tx: Transaction,
    sealed: Sealed,
    tenant: str,
    *,
    id: str,
    purpose: str,
    filename: str,
    ttl: timedelta | None,
    once: Once | None,
    settings: LimitSettings,
) -> tuple[File, bool]:
    """Make an upload visible; one that came before, by its idempotency key or as an SDK's retry, is that file.

    Raises TooMany if the tenant keeps as much as it may.
    """
    if earlier := _made_before(tx, tenant, once):
        return earlier, False
    kept.check(tx, tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: sealed.size_bytes}, settings)
    taken = files.insert(
        tx.conn,
        tenant,
        id=id,
        purpose=purpose,
        filename=filename,
        bytes=sealed.size_bytes,
        sha256=sealed.sha256,
        blob_key=sealed.key,
        ttl=ttl,
        idempotency_key=key_of(once),
        fingerprint=fingerprint_of(once),
    )
    if not taken:
        earlier = _made_before(tx, tenant, once)
        assert earlier is not None, "only an idempotency key can be taken, and its file is there"
        return earlier, False
    unheard_creates.note(tx, tenant, once, id)
    return get(tx, tenant, id), True


def _made_before(tx: Transaction, tenant: str, once: Once | None) -> File | None:
    id = unheard_creates.made_before(tx, tenant, once, files.by_idempotency_key)
    if id is None:
        return None
    # A key stands for its file as long as the row is there; a retry whose file is gone makes another.
    return files.get(tx.conn, tenant, id) if isinstance(once, SdkCreate) else get(tx, tenant, id)


def get(tx: Transaction, tenant: str, id: str) -> File:
    """A tenant's file; raise NotFound."""
    file = files.get(tx.conn, tenant, id)
    if file is None:
        raise NotFound("file", id, param="file_id")
    return file


def page(tx: Transaction, tenant: str, *, purpose: str | None, after: str | None, limit: int, order: str) -> list[File]:
    """A tenant's files, after the one named, which may be gone; raise NotFound for one that never was."""
    place = cursor.place(tx, tenant, Listed.FILES, after)
    return files.page(tx.conn, tenant, purpose=purpose, after=place, limit=limit, order=order)


async def delete(db: AsyncDatabase, blobs: Blobs, tenant: str, id: str) -> None:
    """Delete a file and its bytes; raise NotFound, or Conflict while a batch reads it."""
    await discard(db, blobs, await db.run(_delete, tenant, id))


def _delete(tx: Transaction, tenant: str, id: str) -> str:
    if not files.lock(tx.conn, tenant, id):
        raise NotFound("file", id, param="file_id")
    if batch := files.reading_batch(tx.conn, tenant, id):
        raise Conflict("in use", "deleted", f"The batch {batch} still reads this file.", code="file_in_use")
    key = files.delete(tx.conn, tenant, id)
    assert key is not None, "a locked file is there"
    audit.record(tx, tenant, "file.deleted", id)
    return key


def _intend(tx: Transaction, key: str) -> None:
    files.intend(tx.conn, key)


def _doom(tx: Transaction, key: str) -> None:
    files.doom(tx.conn, [key])


def _forget(tx: Transaction, key: str) -> None:
    files.forget(tx.conn, [key])
