"""Retries: the children of a batch, the input that is derived for one, and the blobs of files that it reads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

_CHILDREN = text("""
    select id from batches where tenant = :tenant and parent = :parent order by created_at, id limit :limit""")

_ADOPT = text("""
    -- The derived input becomes the child's, if this holder still validates it and nobody closed it meanwhile.
    update batches set input_key = :key
    where id = :id and state = 'validating' and finish_as is null and lease = :lease and input_key is null
    returning id""")

_KEYS = text("""
    -- Expired ones too: they are not swept before whoever reads them has ended.
    select id, blob_key from files where tenant = :tenant and id = any(cast(:ids as text[]))""")


def children(conn: Connection, tenant: str, parent: str, *, limit: int) -> list[str]:
    """The batches that repeat lines of this one, oldest first."""
    rows = conn.execute(_CHILDREN, {"tenant": tenant, "parent": parent, "limit": limit})
    return [row.id for row in rows]


def adopt(conn: Connection, id: str, lease: int, key: str) -> bool:
    """Name a child's derived input; False if the lease is not its own any more, or it is closing."""
    return conn.execute(_ADOPT, {"id": id, "lease": lease, "key": key}).first() is not None


def keys(conn: Connection, tenant: str, ids: Sequence[str]) -> dict[str, str]:
    """Where the bytes of a tenant's files are."""
    return {row.id: row.blob_key for row in conn.execute(_KEYS, {"tenant": tenant, "ids": list(ids)})}
