"""Retries: the input that is derived for a batch's child, and the blobs of files that it reads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

_ADOPT = text("""
    -- The derived input becomes the child's, if this holder still validates it and nobody closed it meanwhile.
    update batches set input_key = :key
    where id = :id and state = 'validating' and finish_as is null and lease = :lease and input_key is null
    returning id""")

_KEYS = text("""
    -- Expired ones too: they are not swept before whoever reads them has ended.
    select id, blob_key from files where tenant = :tenant and id = any(cast(:ids as text[]))""")


def adopt(conn: Connection, id: str, lease: int, key: str) -> bool:
    """Name a child's derived input; False if the lease is not its own any more, or it is closing."""
    return conn.execute(_ADOPT, {"id": id, "lease": lease, "key": key}).first() is not None


def keys(conn: Connection, tenant: str, ids: Sequence[str]) -> dict[str, str]:
    """Where the bytes of a tenant's files are."""
    return {row.id: row.blob_key for row in conn.execute(_KEYS, {"tenant": tenant, "ids": list(ids)})}
