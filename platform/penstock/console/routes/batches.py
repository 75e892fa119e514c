"""`/console/batches` and `/console/jobs`: what was submitted, newest first, filtered by qualifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages, qualifiers
from penstock.console.api_client import ApiProblem
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest

router = APIRouter(prefix=BASE)

_QUALIFIERS: Final = ("status", "lane", "model", "meta")
_SAMPLE_LINES: Final = 10
_EMPTY: Final[dict[str, Any]] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@dataclass(frozen=True)
class Noun:
    """Batches and jobs are alike but for their names."""

    one: str
    plural: str
    path: str


BATCHES: Final = Noun("Batch", "Batches", "/batches")
JOBS: Final = Noun("Job", "Jobs", "/jobs")

Asked = Annotated[str, Query(max_length=500)]
After = Annotated[str | None, Query(max_length=100)]


@router.get("/batches")
async def batches(request: Request, visitor: LoggedIn, q: Asked = "", after: After = None) -> Response:
    """Batches of the visitor's tenant."""
    return await _listed(request, visitor, BATCHES, q, after)


@router.get("/jobs")
async def jobs(request: Request, visitor: LoggedIn, q: Asked = "", after: After = None) -> Response:
    """Jobs of the visitor's tenant."""
    return await _listed(request, visitor, JOBS, q, after)


@router.post("/jobs/sample")
async def sample(request: Request, visitor: LoggedIn) -> Response:
    """Send some requests to a model that is served, so that there is something to see."""
    model = await _a_model(visitor)
    if model is None:
        raise BadRequest("No model is served: start a worker first.", param="model")
    asked = [
        {"messages": [{"role": "user", "content": f"Name one thing that comes in {number}s."}], "max_tokens": 16}
        for number in range(1, _SAMPLE_LINES + 1)
    ]
    made = await visitor.api.post(
        "/v1/jobs",
        {
            "model": model,
            "requests": [{"custom_id": f"sample-{number}", "body": body} for number, body in enumerate(asked, 1)],
            "metadata": {"sample": "sent from the console"},
        },
    )
    return pages.redirect(request, f"/jobs/{made['id']}")


async def _listed(request: Request, visitor: Visitor, noun: Noun, asked: str, after: str | None) -> Response:
    problem, status, found = None, 200, _EMPTY
    try:
        query: dict[str, Any] = dict(qualifiers.read(asked, _QUALIFIERS))
        found = await visitor.api.get(f"/v1{noun.path}", query | {"after": after, "limit": 25})
    except (BadRequest, ApiProblem) as error:
        problem, status = error.message, error.status
    model = await _a_model(visitor) if not found["data"] else None
    kept = {"q": asked} if asked else {}
    values = {
        "noun": noun,
        "list": found,
        "asked": asked,
        "problem": problem,
        "is_first": after is None,
        "first_query": f"?{urlencode(kept)}" if kept else "",
        "next": f"?{urlencode(kept | {'after': found['last_id'] or ''})}",
        "server": str(request.base_url).rstrip("/"),
        "model": model,
    }
    return pages.page(request, visitor, "batches.html", status, **values)


async def _a_model(visitor: Visitor) -> str | None:
    """One that is served, else one that is known."""
    models = (await visitor.api.get("/v1/models"))["data"]
    models.sort(key=lambda one: not one.get("live_workers"))
    return models[0]["id"] if models else None
