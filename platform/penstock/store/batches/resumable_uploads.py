"""Resumable uploads: rows of what is to become a file, and of its parts, whose blobs go when it has ended."""

from __future__ import annotations

from sqlalchemy import Connection, TextClause, text

from penstock.domain.api_errors import TooSlow
from penstock.domain.idempotency import fingerprint_of, key_of
from penstock.domain.resumable_upload import LIFE, NewUpload, ResumableUpload, UploadPart, UploadState
from penstock.store.batches import files

_INSERT = text("""
    -- A second create with the same idempotency key inserts nothing.
    insert into uploads (id, tenant, purpose, filename, bytes, mime_type, ttl, expires_at, idempotency_key, fingerprint)
    values (:id, :tenant, :purpose, :filename, :bytes, :mime_type, cast(:ttl as interval),
            now() + cast(:life as interval), :idempotency_key, :fingerprint)
    on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning id""")
_BY_KEY = text("select id, fingerprint from uploads where tenant = :tenant and idempotency_key = :key")
_COLUMNS = "id, tenant, purpose, filename, bytes, ttl, created_at, expires_at, file, parts_hash"
_GET = text(f"""
    -- Too late is expired, before any sweep says so.
    select {_COLUMNS},
           case when state = 'pending' and expires_at <= clock_timestamp() then 'expired' else state end as state
    from uploads where tenant = :tenant and id = :id""")
# Parts of one upload may come at once; who ends it waits for them.
_SHARE = text(_GET.text + " for share")
_LOCK = text(_GET.text + " for update")
_LOCK_UNSWEPT = text(f"""
    -- A complete that began in time may end a little late: its parts are there until the sweep says that it expired.
    select {_COLUMNS}, state from uploads where tenant = :tenant and id = :id for update""")
_INSERT_PART = text("""
    insert into upload_parts (id, tenant, upload, bytes, blob_key) values (:id, :tenant, :upload, :bytes, :blob_key)
    returning id, upload, bytes, blob_key, created_at""")
_PARTS = text("""
    select id, upload, bytes, blob_key, created_at from upload_parts where tenant = :tenant and upload = :upload""")
_COUNT = text("select count(*) from upload_parts where tenant = :tenant and upload = :upload")
_END = text("""
    update uploads set state = :state, file = :file, parts_hash = :parts_hash
    where tenant = :tenant and id = :id and state = 'pending'""")
_DELETE_PARTS = text("""
    -- The rows go and their blobs are due for deletion in one step.
    with gone as (delete from upload_parts where tenant = :tenant and upload = :upload returning blob_key)
    insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from gone
    on conflict (blob_key) do nothing""")


def insert(conn: Connection, new: NewUpload) -> bool:
    """Begin an upload; False if its tenant has begun one with this idempotency key already."""
    once = new.once
    values = vars(new) | {
        "life": LIFE,
        "idempotency_key": key_of(once),
        "fingerprint": fingerprint_of(once),
    }
    return conn.execute(_INSERT, values).first() is not None


def by_idempotency_key(conn: Connection, tenant: str, key: str) -> tuple[str, bytes] | None:
    """The upload that this key began, and the fingerprint of its request."""
    row = conn.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return (row.id, bytes(row.fingerprint)) if row else None


def get(conn: Connection, tenant: str, id: str) -> ResumableUpload | None:
    """A tenant's upload."""
    return _read(conn, _GET, tenant, id)


def share(conn: Connection, tenant: str, id: str) -> ResumableUpload | None:
    """The same, and nobody ends it before this transaction does."""
    return _read(conn, _SHARE, tenant, id)


def lock(conn: Connection, tenant: str, id: str, *, late: bool = False) -> ResumableUpload | None:
    """The same, to end it; `late` if one that has expired and was not swept counts as pending."""
    return _read(conn, _LOCK_UNSWEPT if late else _LOCK, tenant, id)


def _read(conn: Connection, query: TextClause, tenant: str, id: str) -> ResumableUpload | None:
    row = conn.execute(query, {"tenant": tenant, "id": id}).first()
    if row is None:
        return None
    values = dict(row._mapping)
    hashed = values.pop("parts_hash")
    return ResumableUpload(
        **values | {"state": UploadState(values["state"])}, parts_hash=None if hashed is None else bytes(hashed)
    )


def insert_part(conn: Connection, tenant: str, *, id: str, upload: str, bytes: int, blob_key: str) -> UploadPart:
    """Make a whole blob a part, and take its intent back. Raises TooSlow if the blob was given up meanwhile."""
    values = {"tenant": tenant, "id": id, "upload": upload, "bytes": bytes, "blob_key": blob_key}
    row = conn.execute(_INSERT_PART, values).one()
    if not files.published(conn, [blob_key]):
        raise TooSlow("Writing this part took so long that it was given up; send it again.")
    return UploadPart(**row._mapping)


def parts(conn: Connection, tenant: str, upload: str) -> dict[str, UploadPart]:
    """An upload's parts by their ids."""
    found = [UploadPart(**row._mapping) for row in conn.execute(_PARTS, {"tenant": tenant, "upload": upload})]
    return {part.id: part for part in found}


def count_parts(conn: Connection, tenant: str, upload: str) -> int:
    """How many there are."""
    return int(conn.execute(_COUNT, {"tenant": tenant, "upload": upload}).scalar_one())


def end(
    conn: Connection,
    tenant: str,
    id: str,
    state: UploadState,
    *,
    file: str | None = None,
    parts_hash: bytes | None = None,
) -> None:
    """End a pending upload that the caller has locked: its parts go, and their blobs are due for deletion."""
    values = {"tenant": tenant, "id": id, "state": state, "file": file, "parts_hash": parts_hash}
    ended = conn.execute(_END, values).rowcount
    assert ended == 1, "it is locked, and pending"
    conn.execute(_DELETE_PARTS, {"tenant": tenant, "upload": id})
