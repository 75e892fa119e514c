"""`/console/uploads`: the API's resumable uploads for the script of a page, which has a session and no key."""

from __future__ import annotations

from fastapi import APIRouter, Response

from penstock.console.navigation import BASE
from penstock.console.relayed import RelayedAnswer
from penstock.console.session import LoggedIn

router = APIRouter(prefix=f"{BASE}/uploads")


@router.post("")
async def begin(visitor: LoggedIn) -> Response:
    """Begin an upload."""
    return RelayedAnswer(visitor.api, "POST", "/v1/uploads")


@router.post("/{id}/parts")
async def add_part(visitor: LoggedIn, id: str) -> Response:
    """Add a part, at most 64 MiB of it."""
    return RelayedAnswer(visitor.api, "POST", f"/v1/uploads/{id}/parts")


@router.post("/{id}/complete")
async def complete(visitor: LoggedIn, id: str) -> Response:
    """Make the parts one file."""
    return RelayedAnswer(visitor.api, "POST", f"/v1/uploads/{id}/complete")


@router.post("/{id}/cancel")
async def cancel(visitor: LoggedIn, id: str) -> Response:
    """Take the upload back, with its parts."""
    return RelayedAnswer(visitor.api, "POST", f"/v1/uploads/{id}/cancel")
