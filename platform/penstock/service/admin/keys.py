"""Keys: who may call. Only their hashes are kept; a key is shown once, by whoever makes it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.access import ALL, Access, Role, Scope
from penstock.domain.accounts.api_key import ApiKey
from penstock.domain.api_errors import BadRequest, Forbidden, NotFound, Unauthorized
from penstock.service.admin import tenants
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import keys

BOOTSTRAP_TENANT: Final = "default"
PREFIX: Final = "sk-penstock-"
_MOST: Final = 10_000
_LEAST_BOOTSTRAP_CHARACTERS: Final = 16
_LONGEST_LIFE: Final = timedelta(days=3_653)


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    # A key has 256 bits of chance, so a plain hash is as good as a slow one.
    return hashlib.sha256(key.encode()).digest()


def ensure_bootstrap(tx: Transaction, key: str) -> None:
    """Make the first tenant and its key, an operator's, unless they are there; a key that was revoked stays so."""
    if len(key) < _LEAST_BOOTSTRAP_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise BadRequest(f"The bootstrap key must be {_LEAST_BOOTSTRAP_CHARACTERS} or more printable ASCII characters.")
    tenants.ensure(tx, BOOTSTRAP_TENANT)
    access = Access(fresh("key_"), BOOTSTRAP_TENANT, Role.OPERATOR)
    keys.insert(tx.conn, access, name="bootstrap", hash=hash_of(key), tail=key[-4:], life=None)


def create(
    tx: Transaction,
    tenant: str,
    name: str,
    role: Role = Role.TENANT,
    scopes: frozenset[Scope] = ALL,
    life: timedelta | None = None,
    *,
    maker: Access | None = None,
) -> tuple[str, str]:
    """Make a key for a tenant (and the tenant, unless it is there); its id, and the key itself, which is not kept.

    With a `life` it is valid for so long. Raises Forbidden if it would have more than its maker's key; None stands for
    whoever has the database, and may make any.
    """
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise BadRequest("A key's name has 1 to 200 printable characters.", param="name")
    if life is not None and not timedelta(0) < life <= _LONGEST_LIFE:
        raise BadRequest("A key's life is a time up to ten years.", param="expires_in")
    key = PREFIX + secrets.token_urlsafe(32)
    access = Access(fresh("key_"), tenant, role, scopes)
    tenants.ensure(tx, tenant)
    keys.insert(tx.conn, access, name=name, hash=hash_of(key), tail=key[-4:], life=life)
    if maker is not None:
        _check_gift(tx, maker, access)
    return access.key, key


def _check_gift(tx: Transaction, maker: Access, given: Access) -> None:
    """Raise Forbidden if a key that was just made has more than its maker's, or lives longer."""
    maker.check_gift(given)
    ends = get(tx, given.key).expires_at, get(tx, maker.key).expires_at
    if ends[1] is not None and (ends[0] is None or ends[0] > ends[1]):
        raise Forbidden("A key can't make one that lives longer than itself.", code="beyond_own_rights")


def get(tx: Transaction, id: str) -> ApiKey:
    """Any tenant's key, for an operator; raise NotFound."""
    key = keys.find(tx.conn, id)
    if key is None:
        raise NotFound("key", id)
    return key


def page(tx: Transaction, tenant: str | None, *, after: str | None = None, limit: int = _MOST) -> list[ApiKey]:
    """A tenant's keys, or for an operator those of all, oldest first, after the one named; raise NotFound."""
    if after is not None:
        get(tx, after)
    return keys.page(tx.conn, tenant, after=after, limit=limit)


def revoke(tx: Transaction, tenant: str, id: str) -> None:
    """Make a key invalid from now on; raise NotFound if the tenant has no such valid key."""
    if not keys.revoke(tx.conn, tenant, id):
        raise NotFound("key", id)


def revoke_any(tx: Transaction, id: str) -> None:
    """The same for any tenant's key, for an operator."""
    revoke(tx, get(tx, id).tenant, id)


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
