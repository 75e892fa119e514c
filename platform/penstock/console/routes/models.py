"""`/console/models`: models, their versions and aliases, who serves them, and which version gets which share."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem, GrantedApi
from penstock.console.fleet_words import model_name
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm
from penstock.console.live.platform_stream import Streamed
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator, Visitor

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "promote": "The alias stands for it with this share, for what is planned or called from now on.",
    "rollback": "The alias stands again for what it stood for before its last change.",
    "retire": "It is retired: nobody may ask it any more.",
}
_HISTORY: Final = 10

After = Annotated[str | None, Query(max_length=250)]


@router.get("/models")
async def models(
    request: Request, visitor: LoggedInOperator, live: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    """All models, and pools."""
    return pages.page(request, visitor, "models.html", **await _now(visitor.api), live=live != "off")


@router.get("/models/stream")
async def models_stream(stream: Streamed) -> Response:
    """The same, as it changes."""
    return stream.of("models_now.html", _now)


@router.post("/models/{act}")
async def act_on_model(request: Request, visitor: LoggedInOperator, act: str, form: Sent) -> Response:
    """Promote a version, roll an alias back, or retire a version; the form names the model."""
    model = form["model"]
    try:
        await _done(visitor, act, form)
    except ApiProblem as problem:
        return await _one(request, visitor, model, None, problem, form)
    return pages.redirect(request, f"/models/{quote(model)}?{urlencode({'done': act})}")


@router.get("/models/{model:path}")
async def model(request: Request, visitor: LoggedInOperator, model: str, after: After = None) -> Response:
    """One model; its name may hold slashes."""
    return await _one(request, visitor, model, after)


async def _done(visitor: Visitor, act: str, form: SentForm) -> None:
    if act == "promote":
        share = form["weight"]
        body = {
            "version": form["version"].rpartition("@")[2],
            "weight": int(share) if share.isdecimal() and len(share) < 10 else share,
        }
        await visitor.api.post(f"/v1/model_aliases/{form['alias']}/promote", body)
    elif act == "rollback":
        await visitor.api.post(f"/v1/model_aliases/{form['alias']}/rollback")
    elif act == "retire":
        await visitor.api.post(f"/v1/model_versions/{form['version']}/retire")
    else:
        raise ApiProblem(404, {"message": "There is no such page."}, {})


async def _now(api: GrantedApi) -> dict[str, Any]:
    found, aliases, pools, seen = await asyncio.gather(
        api.get("/v1/models"),
        api.get("/v1/model_aliases"),
        api.get("/v1/pools", {"limit": 100}),
        api.get("/v1/admin/overview"),
    )
    named = {f"{one['model']}@{one['alias']}" for one in aliases["data"]}
    backlog: dict[str, dict[str, Any]] = {}
    for one in seen["models"]:
        sums = backlog.setdefault(model_name(one["model"]), {"tokens": 0, "asleep_on": 0, "starting": 0, "hours": 0.0})
        sums["tokens"] += one["backlog_tokens"]
        sums["asleep_on"] += one["asleep_on"]
        sums["starting"] += one["workers_starting"]
        # Versions have workers of their own, so the longest of them counts; one that nobody works on has no end.
        known = one["backlog_hours"] is not None and sums["hours"] is not None
        sums["hours"] = max(sums["hours"], one["backlog_hours"]) if known else None
    return {
        "models": [one for one in found["data"] if one["id"] not in named],
        "aliases": [one for one in aliases["data"] if one["weights"]],
        "pools": pools,
        "backlog": backlog,
        "nothing": {"tokens": 0, "asleep_on": 0, "starting": 0, "hours": 0.0},
    }


async def _one(
    request: Request,
    visitor: Visitor,
    model: str,
    after: str | None,
    problem: ApiProblem | None = None,
    form: SentForm | None = None,
) -> Response:
    api = visitor.api
    one, versions, aliases = await asyncio.gather(
        api.get(f"/v1/models/{model}"),
        api.get("/v1/model_versions", {"model": model, "after": after, "limit": 20}),
        api.get("/v1/model_aliases", {"model": model}),
    )
    there = [alias for alias in aliases["data"] if alias["weights"]][:20]
    past = await asyncio.gather(*(api.get(f"/v1/model_aliases/{alias['id']}/history") for alias in there))
    values = {
        "one": one,
        "versions": versions,
        "aliases": [(alias, history["data"][1 : 1 + _HISTORY]) for alias, history in zip(there, past, strict=True)],
        "is_first": after is None,
        "next": f"?{urlencode({'after': versions['last_id'] or ''})}",
        "problem": problem,
        "typed": form,
        "notices": _NOTICES,
    }
    return pages.page(request, visitor, "model.html", problem.status if problem else 200, **values)
