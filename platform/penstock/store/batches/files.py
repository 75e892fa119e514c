"""Files: rows for bytes that are whole in the blob store, and intents for blobs that may have to go."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from penstock.domain.api_errors import TooSlow
from penstock.domain.file import File
from penstock.store import cursors
from penstock.store.cursors import ListPlace

_INTEND = text("insert into intents (blob_key) values (:key) on conflict (blob_key) do nothing")
_PUBLISHED = text("""
    -- Waits for a sweep that dooms one of them just now, and then looks again.
    delete from intents where blob_key = any(cast(:keys as text[])) and doomed_at is null""")
_DOOM = text("""
    insert into intents (blob_key, doomed_at) select key, clock_timestamp() from unnest(cast(:keys as text[])) as key
    on conflict (blob_key) do update set doomed_at = coalesce(intents.doomed_at, excluded.doomed_at)""")
_FORGET = text("delete from intents where blob_key = any(cast(:keys as text[])) and doomed_at is not null")

_INSERT = text("""
    -- A second upload with the same idempotency key inserts nothing.
    insert into files (id, tenant, purpose, filename, bytes, sha256, blob_key, expires_at, idempotency_key, fingerprint,
                       index_key)
    values (:id, :tenant, :purpose, :filename, :bytes, :sha256, :blob_key, now() + cast(:ttl as interval),
            :idempotency_key, :fingerprint, :index_key)
    on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning id""")

_COLUMNS = "id, tenant, purpose, filename, bytes, blob_key, created_at, expires_at, index_key"
_GET = text(f"""
    select {_COLUMNS} from files
    where tenant = :tenant and id = :id and (expires_at is null or expires_at > clock_timestamp())""")
_GET_SOME = text(f"""
    select {_COLUMNS} from files
    where tenant = :tenant and id = any(cast(:ids as text[]))
      and (expires_at is null or expires_at > clock_timestamp())""")
_INDEX = text("""
    -- The first one stays: every batch over a file finds the same of it.
    update files set index_key = :key where tenant = :tenant and id = :id and index_key is null""")
_BY_KEY = text("select id, fingerprint from files where tenant = :tenant and idempotency_key = :key")
# Whoever creates a batch shares the row until its commit; whoever deletes the file waits for that, then looks.
_SHARE = text(_GET.text + " for share")
_LOCK = text(_GET.text + " for update")
_PAGE = {
    order: text(f"""
    select {_COLUMNS} from files f
    where tenant = :tenant and (expires_at is null or expires_at > clock_timestamp())
      and (cast(:purpose as text) is null or purpose = :purpose)
      and (cast(:after_at as timestamptz) is null or (created_at, id) {compare} (:after_at, :after))
    order by created_at {order}, id {order} limit :limit""")
    for order, compare in (("desc", "<"), ("asc", ">"))
}
_IN_USE = text("""
    select id from batches where tenant = :tenant and input_file = :id and state = 'validating'
    union all
    select id from batches
    where tenant = :tenant and reads <> '{}' and :id = any(reads)
      and state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing')
    limit 1""")
_DELETE = text("""
    -- The row goes and the blob is due for deletion in one step; a sweep deletes what the deleter could not.
    with gone as (delete from files where tenant = :tenant and id = :id returning blob_key)
    insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone returning blob_key""")


def intend(conn: Connection, key: str) -> None:
    """Note that a blob is about to be written under this key; committed before its first byte."""
    conn.execute(_INTEND, {"key": key})


def published(conn: Connection, keys: list[str]) -> bool:
    """Take back intents in the transaction that makes their blobs visible.

    False if one is gone or doomed: its blob may be deleted at any time, and the transaction must not commit.
    """
    return conn.execute(_PUBLISHED, {"keys": keys}).rowcount == len(keys)


def doom(conn: Connection, keys: list[str]) -> None:
    """Say that these blobs must go: committed before they are deleted, and nobody publishes them any more."""
    conn.execute(_DOOM, {"keys": keys})


def forget(conn: Connection, keys: list[str]) -> int:
    """Forget doomed blobs that are deleted; how many were still known."""
    return conn.execute(_FORGET, {"keys": keys}).rowcount


def insert(
    conn: Connection,
    tenant: str,
    *,
    id: str,
    purpose: str,
    filename: str,
    bytes: int,
    sha256: bytes,
    blob_key: str,
    ttl: timedelta | None,
    idempotency_key: str | None = None,
    fingerprint: bytes | None = None,
    index_key: str | None = None,
) -> bool:
    """Make a whole blob visible as a file, and take its intent back; False if the idempotency key has one already.

    Raises TooSlow if the blob was given up meanwhile, because it took so long.
    """
    values = {
        "tenant": tenant,
        "id": id,
        "purpose": purpose,
        "filename": filename,
        "bytes": bytes,
        "sha256": sha256,
        "blob_key": blob_key,
        "ttl": ttl,
        "idempotency_key": idempotency_key,
        "fingerprint": fingerprint,
        "index_key": index_key,
    }
    if conn.execute(_INSERT, values).first() is None:
        return False
    keys = [blob_key] if index_key is None else [blob_key, index_key]
    if not published(conn, keys):
        raise TooSlow("Writing this file took so long that it was given up; send it again.")
    return True


def by_idempotency_key(conn: Connection, tenant: str, key: str) -> tuple[str, bytes] | None:
    """The file that this key created, and the fingerprint of its upload."""
    row = conn.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return (row.id, bytes(row.fingerprint)) if row else None


def get(conn: Connection, tenant: str, id: str) -> File | None:
    """A tenant's file that has not expired."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return File(**row._mapping) if row else None


def some(conn: Connection, tenant: str, ids: list[str]) -> dict[str, File]:
    """Those of a tenant's files that are there and have not expired, by id."""
    rows = conn.execute(_GET_SOME, {"tenant": tenant, "ids": ids})
    return {row.id: File(**row._mapping) for row in rows}


def index(conn: Connection, tenant: str, id: str, key: str) -> bool:
    """Name the index of a file; False if it has one, or is gone: then this one is to go.

    Raises TooSlow if its blob was given up meanwhile.
    """
    if not conn.execute(_INDEX, {"tenant": tenant, "id": id, "key": key}).rowcount:
        return False
    if not published(conn, [key]):
        raise TooSlow("Writing the index took so long that it was given up.")
    return True


def share(conn: Connection, tenant: str, id: str) -> File | None:
    """The same, and nobody deletes it before this transaction ends."""
    row = conn.execute(_SHARE, {"tenant": tenant, "id": id}).first()
    return File(**row._mapping) if row else None


def lock(conn: Connection, tenant: str, id: str) -> bool:
    """Lock a tenant's file for its deletion; False if there is none."""
    return conn.execute(_LOCK, {"tenant": tenant, "id": id}).first() is not None


def page(
    conn: Connection, tenant: str, *, purpose: str | None, after: ListPlace | None, limit: int, order: str = "desc"
) -> list[File]:
    """A tenant's files by time of creation, newest first unless `order` is `asc`, after this place."""
    asked = {"tenant": tenant, "purpose": purpose, "limit": limit}
    rows = conn.execute(_PAGE[order], asked | cursors.values(after))
    return [File(**row._mapping) for row in rows]


def reading_batch(conn: Connection, tenant: str, id: str) -> str | None:
    """A batch that still reads this file, if any: it is validated, or it repeats lines of one that has ended."""
    return conn.execute(_IN_USE, {"tenant": tenant, "id": id}).scalar()


def delete(conn: Connection, tenant: str, id: str) -> str | None:
    """Delete the row; the key of the blob that should be deleted now, or None if there is no such file."""
    return conn.execute(_DELETE, {"tenant": tenant, "id": id}).scalar()
