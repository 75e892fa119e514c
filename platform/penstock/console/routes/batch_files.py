"""`/console/batches/{id}/files/{name}` (and of jobs): its files as downloads, and the results so far while it runs."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from penstock.console.navigation import BASE
from penstock.console.nouns import BATCHES, Named
from penstock.console.session import LoggedIn, Visitor

router = APIRouter(prefix=BASE)

FILES: Final = {
    "input": "input_file_id",
    "output": "output_file_id",
    "error": "error_file_id",
    "merged-output": "merged_output_file_id",
    "merged-error": "merged_error_file_id",
    "trace": "trace_file_id",
}
_SO_FAR: Final = "so-far"
_MOST_LINES: Final = 10_000


class RelayedFile(Response):
    """An answer that the API itself gives to the browser."""

    def __init__(
        self, visitor: Visitor, path: str, query: dict[str, Any] | None = None, name: str | None = None
    ) -> None:
        super().__init__()
        self._visitor = visitor
        self._path = path
        self._query = query
        self._name = name
        """What it is saved as, where the API does not say."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; never as a page of this console's own."""

        async def saved(message: Message) -> None:
            if message["type"] == "http.response.start" and self._name and message["status"] < 300:
                said = f'attachment; filename="{self._name}"'.encode("latin-1")
                message["headers"] = [*message["headers"], (b"content-disposition", said)]
            await send(message)

        await self._visitor.api.relay("GET", self._path, saved, self._query)


@router.get("/batches/{id}/files/{name}")
@router.get("/jobs/{id}/files/{name}")
async def file(visitor: LoggedIn, noun: Named, id: str, name: str) -> Response:
    """Download one of its files."""
    batch = await visitor.api.get(f"/v1{noun.path}/{id}")
    if name == _SO_FAR and noun is BATCHES:
        path, query = f"/v1{noun.path}/{batch['id']}/results", {"limit": _MOST_LINES}
        return RelayedFile(visitor, path, query, f"{batch['id']}-so-far.jsonl")
    found = batch[FILES[name]] if name in FILES else None
    if found is None:
        raise HTTPException(404)
    return RelayedFile(visitor, f"/v1/files/{found}/content")
