"""Forms: what a page sends, read up to a limit, from a browser that gets on with it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final
from urllib.parse import parse_qs

from fastapi import Depends, Request

from penstock.domain.api_errors import BadRequest, TooLarge, TooSlow

_MOST_BYTES: Final = 256 * 1024
_MOST_FIELDS: Final = 2_000
_SECONDS: Final = 15.0


class SentForm:
    """The fields of a form; one that is left out, or empty, is `""`."""

    def __init__(self, fields: dict[str, list[str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, [""])[-1].strip()

    def all(self, name: str) -> list[str]:
        """Each value of a field that may come several times."""
        return self._fields.get(name, [])

    def __contains__(self, name: str) -> bool:
        return name in self._fields


async def _form(request: Request) -> SentForm:
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
        return SentForm(parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise BadRequest("That is no form of this console.") from None


Sent = Annotated[SentForm, Depends(_form)]
"""What the form of a page holds."""
