"""`/health`: is this process alive, can it answer, could a batch run now. It needs no key: it shows nothing private."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.domain.api_errors import Unavailable
from penstock.service.admin import health

router = APIRouter(prefix="/health", tags=["health"], responses={"4XX": DOCUMENTED["4XX"]})


class Health(BaseModel):
    """200 and `ok`, or 503 and what is missing."""

    status: Literal["ok", "unavailable"]
    missing: list[str] = Field(description="For people: `postgres`, `blobs`, `keeper`, `io worker`, `gpu worker`.")


_MISSING: Final[dict[int | str, dict[str, Any]]] = {
    503: {"model": Health, "description": "What is missing; it carries `retry-after`."}
}


def _health(response: Response, missing: list[str]) -> Health:
    if not missing:
        return Health(status="ok", missing=[])
    response.status_code = 503
    response.headers["retry-after"] = "2"
    return Health(status="unavailable", missing=missing)


@router.get("/live", summary="Is the process alive?")
async def live(response: Response) -> Health:
    """Always 200: the event loop turns."""
    return _health(response, [])


@router.get("/ready", summary="Can it answer?", responses=_MISSING)
async def ready(response: Response, here: Here) -> Health:
    """200 if Postgres answers and the blob store takes and gives back a blob (tried now and then)."""
    return _health(response, await health.missing_to_be_ready(here.db, here.blob_readiness))


@router.get("/work", summary="Could a batch run now?", responses=_MISSING)
async def work(
    response: Response,
    here: Here,
    model: Annotated[str | None, Query(description="A batch of this model.", max_length=200)] = None,
) -> Health:
    """200 if a keeper, an io worker and a ready gpu worker (of this model) are live."""
    try:
        return _health(response, await here.db.autocommit(health.missing_to_work, model, here.settings))
    except Unavailable:
        return _health(response, ["postgres"])
