"""`/console/batches/{id}/results` and the same of jobs: what was answered, in input order, or as it comes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import answers, exports, pages
from penstock.console.api_client import ApiProblem
from penstock.console.navigation import BASE
from penstock.console.routes.batches import BATCHES, JOBS, After, Noun
from penstock.console.session import LoggedIn, Visitor

router = APIRouter(prefix=BASE)

_PAGE: Final = 25
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})

Wanted = Annotated[str, Query(max_length=512)]
View = Literal["", "raw"]


@router.get("/batches/{id}/results")
async def results_of_batch(
    request: Request, visitor: LoggedIn, id: str, custom_id: Wanted = "", after: After = None, view: View = ""
) -> Response:
    """A batch's answers, a page of them."""
    return await _results(request, visitor, BATCHES, id, custom_id, after, view)


@router.get("/jobs/{id}/results")
async def results_of_job(
    request: Request, visitor: LoggedIn, id: str, custom_id: Wanted = "", after: After = None, view: View = ""
) -> Response:
    """A job's answers, a page of them."""
    return await _results(request, visitor, JOBS, id, custom_id, after, view)


async def _results(
    request: Request, visitor: Visitor, noun: Noun, id: str, custom_id: str, after: str | None, view: str
) -> Response:
    batch = await visitor.api.get(f"/v1{noun.path}/{id}")
    problem, status = None, 200
    found: dict[str, Any] = {"data": [], "has_more": False, "next_after": None}
    try:
        query = {"limit": _PAGE, "after": after, "include": "response"}
        # Who looks for one line wants to see it whatever became of it.
        query |= {"custom_id": custom_id} if custom_id else {"state": "answered"}
        found = await visitor.api.get(f"/v1{noun.path}/{id}/lines", query)
    except ApiProblem as error:
        problem, status = error.message, error.status
    rows = [(one, _answer(one)) for one in found["data"]]
    keys = answers.columns(said for one, said in rows if one["state"] == "answered")
    kept = {name: value for name, value in (("custom_id", custom_id), ("view", view)) if value}
    values = {
        "noun": noun,
        "batch": batch,
        "tab": "results",
        "list": found,
        "rows": rows,
        "keys": () if view == "raw" else keys,
        "has_columns": bool(keys),
        "view": view,
        "cell": answers.cell,
        "custom_id": custom_id,
        "problem": problem,
        "is_first": after is None,
        "first": f"?{urlencode(kept)}" if kept else "",
        "next": f"?{urlencode(kept | {'after': found['next_after'] or ''})}",
        "other_view": f"?{urlencode(_without_view(kept, view) | ({'after': after} if after else {}))}",
        "ended": batch["status"] in _ENDED,
        "has_file": batch["output_file_id"] is not None or bool(batch.get("results")),
        "has_parquet": exports.has_parquet(),
    }
    return pages.page(request, visitor, "results.html", status, **values)


def _without_view(kept: dict[str, str], view: str) -> dict[str, str]:
    """The same page in the other view."""
    return {name: value for name, value in kept.items() if name != "view"} | ({} if view else {"view": "raw"})


def _answer(line: dict[str, Any]) -> answers.LineAnswer:
    if line["state"] == "failed":
        return answers.LineAnswer(line["message"] or "")
    text = line["response"]
    return answers.NO_ANSWER if text is None else answers.read(text["text"], text["cut"])
