"""`/console/batches/{id}/results.jsonl`, `.csv` and `.parquet`, and the same of jobs: answers to take away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from penstock.console.batches import exports
from penstock.console.batches.nouns import Named
from penstock.console.context import ConsoleContext, Context
from penstock.console.navigation import BASE
from penstock.console.relayed import RelayedAnswer
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import NotFound, Unavailable

router = APIRouter(prefix=BASE)

_PARQUETS_AT_ONCE: Final = 2
_making: set[object] = set()
"""Parquet files that are being made in this process."""


class _JobResults(msgspec.Struct):
    results: list[msgspec.Raw] | None = None


@router.get("/batches/{id}/results.{form}")
@router.get("/jobs/{id}/results.{form}")
async def export(request: Request, visitor: LoggedIn, context: Context, noun: Named, id: str, form: str) -> Response:
    """Answers as a file."""
    batch = await visitor.api.get(f"/v1{noun.path}/{id}")
    file = batch["output_file_id"]
    if file is None and not batch.get("results"):
        raise NotFound("output file of", id)
    if file is not None and form in ("jsonl", "csv", "parquet"):
        await visitor.api.get(f"/v1/files/{file}")  # it may be gone
    if form == "jsonl":
        if file is not None:
            return RelayedAnswer(visitor.api, "GET", f"/v1/files/{file}/content")
        return StreamingResponse(_of_job(visitor, id), headers=_named(id, form), media_type="application/jsonl")
    pieces = visitor.api.pieces(f"/v1/files/{file}/content") if file is not None else _of_job(visitor, id)
    if form == "csv":
        return StreamingResponse(
            exports.as_csv(exports.chunks(pieces)), headers=_named(id, form), media_type="text/csv; charset=utf-8"
        )
    if form == "parquet" and exports.has_parquet():
        return await _parquet(request, context, id, pieces)
    raise HTTPException(404)


async def _parquet(request: Request, context: ConsoleContext, id: str, pieces: AsyncIterator[bytes]) -> Response:
    if len(_making) >= _PARQUETS_AT_ONCE:
        raise Unavailable("Other Parquet files are being made at the moment: try again shortly.")
    mark = object()
    _making.add(mark)
    try:
        file = await exports.as_parquet(exports.chunks(pieces), context.settings.scratch_dir, request.is_disconnected)
    finally:
        _making.discard(mark)
    if file is None:
        return Response(status_code=499)
    size = await asyncio.to_thread(file.seek, 0, 2)
    headers = _named(id, "parquet") | {"content-length": str(size)}
    return StreamingResponse(exports.read_out(file), headers=headers, media_type="application/vnd.apache.parquet")


async def _of_job(visitor: Visitor, id: str) -> AsyncIterator[bytes]:
    """The results of a small job, which has no files: each as it was recorded, on a line."""
    answer = await visitor.api.ask("GET", f"/v1/jobs/{id}")
    for one in msgspec.json.decode(answer.body, type=_JobResults).results or ():
        yield bytes(one) + b"\n"


def _named(id: str, form: str) -> dict[str, Any]:
    plain = "".join(letter for letter in id if letter.isascii() and (letter.isalnum() or letter in "_-"))
    return {"content-disposition": f'attachment; filename="{plain}.{form}"'}
