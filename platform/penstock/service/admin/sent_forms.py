"""Sent forms: a form of the console that is sent again, by a double click or a page that is loaded again, is one form.

What the first was answered with is kept a quarter of an hour for the second, as it may be all that shows a secret that
was made. It is encrypted with a key made of the form's token, of which the database has a hash only: whoever reads the
database reads no answer.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from penstock.service.admin import keys as api_keys
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import sent_forms

KEPT: Final = timedelta(minutes=15)
_MOST_OF_A_SESSION: Final = 20
_MOST_BYTES: Final = 65_536


@dataclass(frozen=True)
class FormIdentity:
    """Which form it is: whose session sent it, its random token, and all that it says."""

    session: str
    token: str
    says: bytes

    @property
    def holder(self) -> bytes:
        """The session's hash."""
        return api_keys.hash_of(self.session)

    @property
    def hash(self) -> bytes:
        """What stands for the form in the database."""
        return hashlib.sha256(f"form {self.token} ".encode() + self.says).digest()

    @property
    def cipher(self) -> Fernet:
        """What its answer is encrypted with."""
        return Fernet(base64.urlsafe_b64encode(hashlib.sha256(f"answer {self.token}".encode()).digest()))


class FormAnswer(msgspec.Struct, frozen=True):
    """What a form was answered with."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class SentBefore:
    """A form that was sent already: whether it is done, and the answer where it is kept."""

    done: bool
    answer: FormAnswer | None


def take(tx: Transaction, form: FormIdentity) -> bool:
    """Begin to do what a form asks; False if it was sent before."""
    return sent_forms.take(tx.conn, form.holder, form.hash, kept=KEPT, most=_MOST_OF_A_SESSION)


def before(tx: Transaction, form: FormIdentity) -> SentBefore | None:
    """What is known of a form that was sent before; None if it did nothing and may be sent again."""
    found = sent_forms.find(tx.conn, form.holder, form.hash)
    if found is None:
        return None
    done, sealed = found
    if sealed is None:
        return SentBefore(done, None)
    try:
        return SentBefore(done, msgspec.json.decode(form.cipher.decrypt(sealed), type=FormAnswer))
    except (InvalidToken, msgspec.DecodeError):
        return SentBefore(done, None)


def keep(tx: Transaction, form: FormIdentity, answer: FormAnswer) -> None:
    """Note that what a form asked is done, with its answer unless that is too large."""
    sealed = form.cipher.encrypt(msgspec.json.encode(answer))
    sent_forms.keep(tx.conn, form.holder, form.hash, sealed if len(sealed) <= _MOST_BYTES else None)


def give_back(tx: Transaction, form: FormIdentity) -> None:
    """A form that did nothing may be sent again."""
    sent_forms.give_back(tx.conn, form.holder, form.hash)
