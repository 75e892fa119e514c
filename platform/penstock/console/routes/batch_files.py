"""`/console/batches/{id}/files/{name}` (and of jobs): its files as downloads, and the results so far while it runs."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from penstock.console.api_client import Query
from penstock.console.batches.nouns import BATCHES, Named
from penstock.console.navigation import BASE
from penstock.console.relayed import RelayedAnswer
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


class NamedDownload(RelayedAnswer):
    """A relayed answer that is saved under a name: the API says none."""

    def __init__(self, visitor: Visitor, path: str, query: Query, name: str) -> None:
        super().__init__(visitor.api, "GET", path, query)
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the API answer."""

        async def saved(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                said = f'attachment; filename="{self._name}"'.encode("latin-1")
                message["headers"] = [*message["headers"], (b"content-disposition", said)]
            await send(message)

        await super().__call__(scope, receive, saved)


@router.get("/batches/{id}/files/{name}")
@router.get("/jobs/{id}/files/{name}")
async def file(visitor: LoggedIn, noun: Named, id: str, name: str) -> Response:
    """Download one of its files."""
    batch = await visitor.api.get(f"/v1{noun.path}/{id}")
    if name == _SO_FAR and noun is BATCHES:
        path, query = f"/v1{noun.path}/{batch['id']}/results", {"limit": _MOST_LINES}
        return NamedDownload(visitor, path, query, f"{batch['id']}-so-far.jsonl")
    found = batch[FILES[name]] if name in FILES else None
    if found is None:
        raise HTTPException(404)
    return RelayedAnswer(visitor.api, "GET", f"/v1/files/{found}/content")
