"""Batch filters: which batches or jobs a list holds, as a query says it, and a bulk action's body."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from pydantic import Field, StringConstraints

from penstock.api.http.body import Asked, Text
from penstock.api.schemas.terms import LaneName, Metadata
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.batch_filter import BatchFilter, check_metadata, read_states
from penstock.domain.work.lane import Lane

Unix = Annotated[int, Field(ge=0, le=253_402_300_799)]
_PAIR: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)

DOCUMENTED: Final[dict[str, Any]] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "description": "`metadata[key]=value`, up to 16 times: those that have all these pairs.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}
"""What a route with `Chosen` adds to its page."""


async def _chosen(
    request: Request,
    status: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Those with one of these, by comma: `validating,in_progress`. `in_progress` has the paused "
            "ones, as the field `status` has; `paused` chooses them alone.",
        ),
    ] = None,
    lane: LaneName | None = None,
    model: Annotated[
        str | None, Query(max_length=200, description="Those whose lines all ask this one, once that is known.")
    ] = None,
    created_after: Annotated[Unix | None, Query(description="Unix seconds: created then or later.")] = None,
    created_before: Annotated[Unix | None, Query(description="Unix seconds: created before.")] = None,
) -> BatchFilter:
    return BatchFilter(
        read_states(status.split(",")) if status else frozenset(),
        Lane(lane) if lane else None,
        model or None,
        _pairs(request),
        _time(created_after),
        _time(created_before),
    )


Chosen = Annotated[BatchFilter, Depends(_chosen)]
"""The filter of a list."""


class FilterBody(Asked):
    """Which of all; what is left out (or null) is not asked about."""

    status: Annotated[list[Text], Field(max_length=9)] | None = Field(
        None, description="As `?status=` of the list takes them; `in_progress` has the paused ones."
    )
    lane: LaneName | None = None
    model: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    metadata: Metadata | None = Field(None, description="Those that have all these pairs.")
    created_after: Unix | None = Field(None, description="Unix seconds: created then or later.")
    created_before: Unix | None = Field(None, description="Unix seconds: created before.")

    def chosen(self) -> BatchFilter:
        """As services take it; raise BadRequest."""
        return BatchFilter(
            read_states(self.status or (), "filter.status"),
            Lane(self.lane) if self.lane else None,
            self.model,
            self.metadata or {},
            _time(self.created_after),
            _time(self.created_before),
        )


def _pairs(request: Request) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if found := _PAIR.fullmatch(name):
            if pairs.setdefault(found[1], value) != value:
                raise BadRequest("A key has one value.", param="metadata")
        elif name == "metadata":
            raise BadRequest("Pairs are asked for as metadata[key]=value.", param="metadata")
    return dict(check_metadata(pairs))


def _time(unix: int | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)
