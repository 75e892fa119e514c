"""Forms: what a page sends, read up to a limit, from a browser that gets on with it."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Query, Request

from penstock.domain.api_errors import BadRequest, TooLarge, TooSlow

_MOST_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 2_000
_SECONDS: Final = 15.0
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
"""What tells one form that a page shows from another; it comes in the field `once`."""


class SentForm:
    """The fields of a form; one that is left out, or empty, is `""`."""

    def __init__(self, fields: dict[str, list[str]], raw: bytes = b"") -> None:
        self._fields = fields
        self.raw = raw
        """As it came."""

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, [""])[-1].strip()

    def all(self, name: str) -> list[str]:
        """Each value of a field that may come several times."""
        return self._fields.get(name, [])

    def __contains__(self, name: str) -> bool:
        return name in self._fields


def is_form(request: Request) -> bool:
    """Whether a request brings the fields of a form, and no file."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded"


async def sent(request: Request) -> SentForm:
    """What a request's form holds; it is read once. Raises TooLarge, TooSlow, BadRequest."""
    if not hasattr(request.state, "form"):
        request.state.form = await _read(request)
    form: SentForm = request.state.form
    return form


async def _read(request: Request) -> SentForm:
    raw = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for piece in request.stream():
                raw += piece
                if len(raw) > _MOST_BYTES:
                    raise TooLarge(f"The form is larger than {_MOST_BYTES} bytes.")
    except TimeoutError:
        raise TooSlow from None
    try:
        fields = parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise BadRequest("That is no form of this console.") from None
    return SentForm(fields, bytes(raw))


def once_headers(token: str) -> dict[str, str]:
    """What lets the API's create be made once, however often a form with this token brings it."""
    return {"idempotency-key": f"console-{token}"} if TOKEN.fullmatch(token) else {}


OnceAsked = Annotated[str, Query(alias="once", max_length=128)]
"""The token of a form that brings a file: in its address, as the file goes to the API unread."""

Sent = Annotated[SentForm, Depends(sent)]
"""What the form of a page holds."""
