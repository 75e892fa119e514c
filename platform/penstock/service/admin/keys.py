"""Keys: who may call. Only their hashes are kept; a key is shown once, by whoever makes it."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from penstock.domain.accounts.api_key import ApiKey
from penstock.domain.api_errors import BadRequest, NotFound, Unauthorized
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import keys

BOOTSTRAP_TENANT: Final = "default"
PREFIX: Final = "sk-penstock-"
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LEAST_BOOTSTRAP_CHARACTERS: Final = 16


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    # A key has 256 bits of chance, so a plain hash is as good as a slow one.
    return hashlib.sha256(key.encode()).digest()


def ensure_bootstrap(tx: Transaction, key: str) -> None:
    """Make the first tenant and its key unless they are there; a key that was revoked stays so."""
    if len(key) < _LEAST_BOOTSTRAP_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise BadRequest(f"The bootstrap key must be {_LEAST_BOOTSTRAP_CHARACTERS} or more printable ASCII characters.")
    keys.ensure_tenant(tx.conn, BOOTSTRAP_TENANT, BOOTSTRAP_TENANT)
    keys.insert(tx.conn, BOOTSTRAP_TENANT, id=fresh("key_"), name="bootstrap", hash=hash_of(key), tail=key[-4:])


def create(tx: Transaction, tenant: str, name: str) -> tuple[str, str]:
    """Make a key for a tenant (and the tenant, unless it is there); its id, and the key itself, which is not kept."""
    if not _TENANT.fullmatch(tenant):
        raise BadRequest("A tenant's name has 1 to 63 of a-z, 0-9, _ and -.", param="tenant")
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise BadRequest("A key's name has 1 to 200 printable characters.", param="name")
    key = PREFIX + secrets.token_urlsafe(32)
    id = fresh("key_")
    keys.ensure_tenant(tx.conn, tenant, tenant)
    keys.insert(tx.conn, tenant, id=id, name=name, hash=hash_of(key), tail=key[-4:])
    return id, key


def page(tx: Transaction, tenant: str) -> list[ApiKey]:
    """The tenant's keys, oldest first."""
    return keys.page(tx.conn, tenant)


def revoke(tx: Transaction, tenant: str, id: str) -> None:
    """Make a key invalid from now on; raise NotFound if the tenant has no such valid key."""
    if not keys.revoke(tx.conn, tenant, id):
        raise NotFound("key", id)


def tenant_of(tx: Transaction, key: str) -> str:
    """The tenant that this key speaks for; raise Unauthorized."""
    tenant = tenant_of_hash(tx, hash_of(key))
    if tenant is None:
        raise Unauthorized
    return tenant


def tenant_of_hash(tx: Transaction, hash: bytes) -> str | None:
    """The tenant that the key with this hash speaks for, if there is such a valid key."""
    return keys.tenant_of(tx.conn, hash)
