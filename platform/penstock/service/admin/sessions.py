"""Sessions: a person logs in to the console with a key once, and a random token in a cookie stands for it.

Only the token's hash is kept. What a session may do is what its key may at that moment: a key that is revoked, has
ended or whose tenant was closed ends its sessions with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import Unauthorized
from penstock.service.admin import keys as api_keys
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.settings.sweep import SweepSettings
from penstock.store.accounts import keys, sessions

_MOST_OF_A_KEY: Final = 50
_TOKEN_CHARACTERS: Final = 43


def open_session(tx: Transaction, access: Access) -> str:
    """Log in as whoever has a valid key with this access; the token that stands for it from now on."""
    token = secrets.token_urlsafe(32)
    sessions.insert(tx.conn, api_keys.hash_of(token), access.key, most=_MOST_OF_A_KEY)
    audit.record(tx, access.tenant, "session.opened", access.key)
    return token


def access_of(tx: Transaction, token: str, settings: SweepSettings, *, asks: bool) -> Access:
    """What the session with this token may do; raise Unauthorized where there is none, or where it is over.

    asks: a person asks something, so it is not idle; what only goes on watching is.
    """
    if len(token) != _TOKEN_CHARACTERS or not token.isascii():
        raise Unauthorized
    hash = api_keys.hash_of(token)
    idle = timedelta(seconds=settings.session_idle_seconds)
    access = keys.access_of_session(tx.conn, hash, idle=idle, asks=asks)
    if access is None:
        raise Unauthorized
    return access


def valid(tx: Transaction, tokens: Iterable[str], settings: SweepSettings) -> set[str]:
    """Those of which a session is valid at this moment; none becomes less idle by it."""
    by_hash = {api_keys.hash_of(token): token for token in tokens}
    idle = timedelta(seconds=settings.session_idle_seconds)
    return {by_hash[hash] for hash in sessions.valid(tx.conn, list(by_hash), idle=idle)}


def end(tx: Transaction, token: str) -> None:
    """Log out."""
    sessions.end(tx.conn, api_keys.hash_of(token))
