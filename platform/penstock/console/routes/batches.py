"""`/console/batches` and `/console/jobs`: what was submitted, newest first, filtered by qualifiers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem
from penstock.console.batches import batch_rows
from penstock.console.batches.nouns import BATCHES, JOBS, Named, Noun
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, once_headers
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest

__all__ = ["BATCHES", "JOBS", "Noun", "router"]

router = APIRouter(prefix=BASE, route_class=FormRoute)

_SAMPLE_LINES = 10
_NOTICES = {"deleted": "Deleted, with its results."}

Asked = Annotated[str, Query(max_length=500)]
After = Annotated[str | None, Query(max_length=100)]
Live = Annotated[str, Query(max_length=10)]


@router.get("/batches")
@router.get("/jobs")
async def listed(
    request: Request, visitor: LoggedIn, noun: Named, q: Asked = "", after: After = None, live: Live = "on"
) -> Response:
    """Batches or jobs of the visitor's tenant."""
    problem, status = None, 200
    try:
        values = await batch_rows.found(visitor, noun, q, after)
    except (BadRequest, ApiProblem) as error:
        if isinstance(error, ApiProblem) and error.status != 400:
            raise
        problem, status = error.message, error.status
        values = batch_rows.shown(noun, q, after, batch_rows.EMPTY, await batch_rows.totals(visitor, noun))
    model = await _a_model(visitor) if not values["list"]["data"] else None
    return pages.page(
        request,
        visitor,
        "batches.html",
        status,
        **values,
        notices=_NOTICES,
        problem=problem,
        live=live != "off",
        server=str(request.base_url).rstrip("/"),
        model=model,
    )


@router.post("/jobs/sample")
async def sample(request: Request, visitor: LoggedIn, form: Sent) -> Response:
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
        once_headers(form["once"]),
    )
    return pages.redirect(request, f"/jobs/{made['id']}")


async def _a_model(visitor: Visitor) -> str | None:
    """One that is served, else one that is known."""
    models = (await visitor.api.get("/v1/models"))["data"]
    models.sort(key=lambda one: not one.get("live_workers"))
    return models[0]["id"] if models else None
