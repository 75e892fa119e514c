"""Keys: who may call. Only their hashes are kept; a key is shown once, by whoever makes it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.access import ALL, Access, Role, Scope
from penstock.domain.accounts.api_key import ApiKey
from penstock.domain.accounts.tenant import BOOTSTRAP_TENANT
from penstock.domain.api_errors import BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from penstock.domain.limits.limit import LimitName
from penstock.service.admin import tenants
from penstock.service.core import audit
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.limits import kept
from penstock.settings.limits import LimitSettings
from penstock.store.accounts import keys

PREFIX: Final = "sk-penstock-"
_MOST: Final = 10_000
_LONGEST_LIFE: Final = timedelta(days=3_653)
_LONGEST_OVERLAP: Final = timedelta(days=30)
_MOST_MODELS: Final = 100
ROTATION_OVERLAP: Final = timedelta(hours=24)
"""So long a rotated key stays valid beside its successor, unless told."""


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    # A key has 256 bits of chance, so a plain hash is as good as a slow one.
    return hashlib.sha256(key.encode()).digest()


def ensure_bootstrap(tx: Transaction, key: str) -> None:
    """Make the first tenant and its key, an operator's, unless they are there; a key that was revoked stays so."""
    tenants.ensure(tx, BOOTSTRAP_TENANT)
    access = Access(fresh("key_"), BOOTSTRAP_TENANT, Role.OPERATOR)
    if keys.insert(tx.conn, access, name="bootstrap", hash=hash_of(key), tail=key[-4:], life=None):
        _record_made(tx, access)


def create(
    tx: Transaction,
    tenant: str,
    name: str,
    role: Role = Role.TENANT,
    scopes: frozenset[Scope] = ALL,
    life: timedelta | None = None,
    models: frozenset[str] | None = None,
    *,
    maker: Access | None = None,
    settings: LimitSettings | None = None,
) -> tuple[str, str]:
    """Make a key for a tenant (and the tenant, unless it is there); its id, and the key itself, which is not kept.

    With a `life` it is valid for so long. Raises TooMany beyond the tenant's limit, if `settings` are
    given, and Forbidden if it would have more than its maker's key; None stands for whoever has the database, and may
    make any.
    """
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise BadRequest("A key's name has 1 to 200 printable characters.", param="name")
    if life is not None and not timedelta(0) < life <= _LONGEST_LIFE:
        raise BadRequest("A key's life is a time up to ten years.", param="expires_in")
    if models is not None:
        _check_models(models)
    key = PREFIX + secrets.token_urlsafe(32)
    access = Access(fresh("key_"), tenant, role, scopes, models)
    tenants.ensure(tx, tenant)
    if settings is not None:
        kept.check(tx, tenant, {LimitName.KEYS: 1}, settings)
    keys.insert(tx.conn, access, name=name, hash=hash_of(key), tail=key[-4:], life=life)
    if maker is not None:
        _check_gift(tx, maker, get(tx, access.key))
    _record_made(tx, access)
    return access.key, key


def _record_made(tx: Transaction, access: Access) -> None:
    models = None if access.models is None else len(access.models)
    audit.record(
        tx, access.tenant, "api_key.created", access.key, role=access.role, scopes=sorted(access.scopes), models=models
    )


def _check_models(models: frozenset[str]) -> None:
    if not 0 < len(models) <= _MOST_MODELS or not all(0 < len(one) <= 200 and one.isprintable() for one in models):
        raise BadRequest(f"A key is for 1 to {_MOST_MODELS} models, or for all.", param="models")


def _check_gift(tx: Transaction, maker: Access, given: ApiKey) -> None:
    """Raise Forbidden if a key has more than its maker's, or lives longer."""
    maker.check_gift(given.access)
    end = get(tx, maker.key).expires_at
    if end is not None and (given.expires_at is None or given.expires_at > end):
        raise Forbidden("A key can't make one that lives longer than itself.", code="beyond_own_rights")


def rotate(
    tx: Transaction,
    id: str,
    overlap: timedelta = ROTATION_OVERLAP,
    *,
    maker: Access | None = None,
    settings: LimitSettings | None = None,
) -> tuple[str, str]:
    """A new key with what this one has, its end too; this one ends after the overlap, or at once.

    The new key's id, and the key itself, which is not kept. Raises NotFound, Conflict if it was rotated, is not valid
    any more or its tenant is being erased, BadRequest, and Forbidden and TooMany as `create` does: while both are valid
    they are two.
    """
    if not timedelta(0) <= overlap <= _LONGEST_OVERLAP:
        raise BadRequest("The overlap is a time up to 30 days, or none.", param="overlap_seconds")
    old = get(tx, id)
    if maker is not None:
        _check_gift(tx, maker, old)
    tenants.check_open(tx, old.tenant)
    if settings is not None and overlap:
        kept.check(tx, old.tenant, {LimitName.KEYS: 1}, settings)
    new, key = fresh("key_"), PREFIX + secrets.token_urlsafe(32)
    if not keys.rotate(tx.conn, id, new=new, hash=hash_of(key), tail=key[-4:], overlap=overlap):
        state = f"replaced by {old.replaced_by}" if old.replaced_by else "not valid any more"
        raise Conflict(state, "rotated", f"The key is {state}: it can't be rotated.")
    audit.record(tx, old.tenant, "api_key.rotated", id, new=new, overlap_seconds=overlap.total_seconds())
    return new, key


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
    audit.record(tx, tenant, "api_key.revoked", id)


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
