"""Paging: how a client asks for a part of a list, by OpenAI's names."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

After = Annotated[
    str | None,
    Query(description="The last id of the page before, even if it was deleted since (for a day).", max_length=200),
]
Limit = Annotated[int, Query(ge=1, le=100)]
