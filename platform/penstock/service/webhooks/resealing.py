"""Resealing: every webhook secret comes under the first key, some at a time; what is done already is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock.service.core.transaction import Database, Transaction
from penstock.service.webhooks.secret_keys import SCHEME, SecretKeys, SecretUnreadable
from penstock.store import webhooks

AT_ONCE: Final = 500
"""Endpoints of one transaction."""


@dataclass(frozen=True)
class Resealed:
    """What came of some endpoints: `last` is where to go on, None at the end."""

    last: str | None
    done: int
    unreadable: tuple[str, ...]
    """Endpoints whose secret no key of ours opens; they stay as they are."""


def reseal(tx: Transaction, keys: SecretKeys, after: str, limit: int = AT_ONCE) -> Resealed:
    """Put the secrets of the next endpoints under the first key. May be broken off and begun again at any point."""
    found = webhooks.sealed_otherwise(tx.conn, f"{SCHEME}{keys.first}:", after, limit)
    unreadable = []
    for id, secret, old_secret in found:
        try:
            now = keys.seal(keys.open(secret)).text
        except SecretUnreadable:
            unreadable.append(id)
            continue
        try:
            before = None if old_secret is None else keys.seal(keys.open(old_secret)).text
        except SecretUnreadable:  # it signs for a day at most: what nobody can read is kept until then
            before = old_secret
        webhooks.seal(tx.conn, id, now, before)
    last = found[-1][0] if len(found) == limit else None
    return Resealed(last, len(found) - len(unreadable), tuple(unreadable))


def reseal_all(db: Database, keys: SecretKeys) -> Iterator[Resealed]:
    """Reseal everything, one transaction after the other."""
    after: str | None = ""
    while after is not None:
        done: Resealed = db.run(reseal, keys, after)
        yield done
        after = done.last


def counts(tx: Transaction) -> dict[str, int]:
    """How many endpoints' secrets are under each key, by its id; `` for those that are not sealed."""
    return webhooks.count_by_key(tx.conn, SCHEME)
