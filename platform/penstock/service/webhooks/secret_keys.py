"""Secret keys: webhook secrets are in the database encrypted, with keys that only those who sign or make them have.

A sealed secret is `fernet:KEY_ID:TOKEN`: AES-128-CBC with HMAC-SHA256 (https://github.com/fernet/spec), under the
operator's key with this id. Several keys may be in force: the first seals, all open. The id is the start of the key's
SHA-256, so that a key that is missing can be named without being known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from penstock.domain.api_errors import Unavailable
from penstock.domain.webhook import SECRET_PREFIX, SealedSecret
from penstock.settings.webhooks import WebhookSettings

SCHEME: Final = "fernet:"
"""What a sealed secret begins with; one from before begins with `whsec_` and is its own text."""


class SecretUnreadable(Exception):
    """A sealed secret can't be opened."""


class SecretKeys:
    """The operator's keys, the one that seals first. Raises ValueError if one of them is no key."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys: dict[str, Fernet] = {}
        for key in keys:
            try:
                self._keys[_id(key)] = Fernet(key)
            except ValueError:
                raise ValueError("a secret key is base64 (URL-safe) of 32 bytes: `penstock secrets new-key`") from None

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all keys, the one that seals first."""
        return tuple(self._keys)

    @property
    def first(self) -> str | None:
        """The id of the key that seals; None if there is none."""
        return next(iter(self._keys), None)

    def seal(self, secret: str) -> SealedSecret:
        """Encrypt a secret. Raises Unavailable if there is no key."""
        if self.first is None:
            raise Unavailable("This platform has no key to keep webhook secrets with; its operator has to give it one.")
        token = self._keys[self.first].encrypt(secret.encode()).decode()
        return SealedSecret(f"{SCHEME}{self.first}:{token}", secret[-4:])

    def open(self, sealed: str) -> str:
        """Decrypt a secret. Raises SecretUnreadable, which names the key that is missing."""
        if sealed.startswith(SECRET_PREFIX):
            return sealed
        id, _, token = sealed.removeprefix(SCHEME).partition(":")
        key = self._keys.get(id)
        if key is None:
            raise SecretUnreadable(f"it is sealed with the key {id}, which this process does not have")
        try:
            return key.decrypt(token).decode()
        except InvalidToken:
            raise SecretUnreadable(f"it is not what the key {id} has sealed") from None


def of(settings: WebhookSettings) -> SecretKeys:
    """The keys that a process was given: those of the environment, then those of the file. Read once.

    Ends the process with one line if one is no key, or the file can't be read: that is for its start.
    """
    given = settings.secret_keys.get_secret_value() if settings.secret_keys else ""
    try:
        return _keys(given, settings.secret_keys_file)
    except (ValueError, OSError) as error:
        raise SystemExit(f"penstock: the secret keys can't be read: {error}") from None


@lru_cache(maxsize=8)
def _keys(given: str, file: Path | None) -> SecretKeys:
    return SecretKeys([*given.replace(",", " ").split(), *(file.read_text().split() if file else ())])


def new_key() -> str:
    """A key of 256 bits of chance."""
    return Fernet.generate_key().decode()


def _id(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]
