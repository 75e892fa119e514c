"""Fresh ids and blob keys: where time and chance come in."""

from __future__ import annotations

import secrets
import time

from penstock.domain.ids import sortable_id


def fresh(prefix: str) -> str:
    """A new id that sorts by time: `file-`, `batch_`, `job_`, `evt_`, `key_`."""
    return sortable_id(prefix, time.time_ns() // 1_000_000, secrets.token_bytes(10))


def blob_key(tenant: str, what: str) -> str:
    """A new, unguessable key in the blob store: `<tenant>/<what>/<32 hex digits>`."""
    return f"{tenant}/{what}/{secrets.token_hex(16)}"
