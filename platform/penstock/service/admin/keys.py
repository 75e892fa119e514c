"""Keys: who may call. Only their hashes are kept; a key is shown once, by whoever makes it."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.access import ALL, Access, Role, Scope
from penstock.domain.accounts.api_key import ApiKey
from penstock.domain.api_errors import BadRequest, NotFound, Unauthorized
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import keys

BOOTSTRAP_TENANT: Final = "default"
PREFIX: Final = "sk-penstock-"
_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LEAST_BOOTSTRAP_CHARACTERS: Final = 16
_LONGEST_LIFE: Final = timedelta(days=3_653)


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    # A key has 256 bits of chance, so a plain hash is as good as a slow one.
    return hashlib.sha256(key.encode()).digest()


def ensure_bootstrap(tx: Transaction, key: str) -> None:
    """Make the first tenant and its key unless they are there; a key that was revoked stays so."""
    if len(key) < _LEAST_BOOTSTRAP_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise BadRequest(f"The bootstrap key must be {_LEAST_BOOTSTRAP_CHARACTERS} or more printable ASCII characters.")
    keys.ensure_tenant(tx.conn, BOOTSTRAP_TENANT, BOOTSTRAP_TENANT)
    access = Access(fresh("key_"), BOOTSTRAP_TENANT)
    keys.insert(tx.conn, access, name="bootstrap", hash=hash_of(key), tail=key[-4:], life=None)


def create(
    tx: Transaction,
    tenant: str,
    name: str,
    role: Role = Role.TENANT,
    scopes: frozenset[Scope] = ALL,
    life: timedelta | None = None,
) -> tuple[str, str]:
    """Make a key for a tenant (and the tenant, unless it is there); its id, and the key itself, which is not kept.

    With a `life` it is valid for so long.
    """
    if not _TENANT.fullmatch(tenant):
        raise BadRequest("A tenant's name has 1 to 63 of a-z, 0-9, _ and -.", param="tenant")
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise BadRequest("A key's name has 1 to 200 printable characters.", param="name")
    if life is not None and not timedelta(0) < life <= _LONGEST_LIFE:
        raise BadRequest("A key's life is a time up to ten years.", param="expires_in")
    key = PREFIX + secrets.token_urlsafe(32)
    access = Access(fresh("key_"), tenant, role, scopes)
    keys.ensure_tenant(tx.conn, tenant, tenant)
    keys.insert(tx.conn, access, name=name, hash=hash_of(key), tail=key[-4:], life=life)
    return access.key, key


def page(tx: Transaction, tenant: str) -> list[ApiKey]:
    """The tenant's keys, oldest first."""
    return keys.page(tx.conn, tenant)


def revoke(tx: Transaction, tenant: str, id: str) -> None:
    """Make a key invalid from now on; raise NotFound if the tenant has no such valid key."""
    if not keys.revoke(tx.conn, tenant, id):
        raise NotFound("key", id)


def access_of(tx: Transaction, key: str) -> Access:
    """What this key may do; raise Unauthorized."""
    hash = hash_of(key)
    access = access_of_hashes(tx, [hash]).get(hash)
    if access is None:
        raise Unauthorized
    return access


def access_of_hashes(tx: Transaction, hashes: Sequence[bytes]) -> dict[bytes, Access]:
    """What the valid keys with these hashes may do; other hashes are left out."""
    return keys.access_of(tx.conn, hashes)
