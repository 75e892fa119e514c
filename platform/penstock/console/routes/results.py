"""`/console/batches/{id}/results` and the same of jobs: what was answered, in input order, or as it comes."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem
from penstock.console.batches import answers, batch_words, exports
from penstock.console.batches.nouns import Named
from penstock.console.navigation import BASE
from penstock.console.routes.batches import After
from penstock.console.session import LoggedIn

router = APIRouter(prefix=BASE)

_PAGE: Final = 25

Wanted = Annotated[str, Query(max_length=512)]
View = Literal["", "raw"]


@router.get("/batches/{id}/results")
@router.get("/jobs/{id}/results")
async def results(
    request: Request,
    visitor: LoggedIn,
    noun: Named,
    id: str,
    custom_id: Wanted = "",
    after: After = None,
    view: View = "",
) -> Response:
    """Answers, a page of them."""
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
        "ended": batch_words.has_ended(batch),
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
