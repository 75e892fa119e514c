"""Paging: where a list of the API goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query

After = Annotated[str | None, Query(max_length=200)]


def following(found: Mapping[str, Any], **kept: str | None) -> str:
    """The query of the next page, which keeps what else was asked."""
    asked = {name: value for name, value in kept.items() if value}
    return f"?{urlencode(asked | {'after': found['last_id'] or ''})}"


def first(**kept: str | None) -> str:
    """The query of the first page."""
    asked = {name: value for name, value in kept.items() if value}
    return f"?{urlencode(asked)}" if asked else "?"
