"""The rows of a list of batches or jobs, and how many there are of each status."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from penstock.console import qualifiers
from penstock.console.batches import batch_live
from penstock.console.batches.batch_words import Shape
from penstock.console.batches.nouns import Noun
from penstock.console.session import Visitor

QUALIFIERS: Final = ("status", "lane", "model", "meta")
EMPTY: Final[dict[str, Any]] = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
PAGE: Final = 25


async def found(visitor: Visitor, noun: Noun, asked: str, after: str | None = None) -> dict[str, Any]:
    """What a page of the list shows; raises BadRequest for what is no qualifier, and ApiProblem."""
    query: dict[str, Any] = dict(qualifiers.read(asked, QUALIFIERS))
    rows = await visitor.api.get(f"/v1{noun.path}", query | {"after": after, "limit": PAGE})
    return shown(noun, asked, after, rows, await totals(visitor, noun))


def shown(noun: Noun, asked: str, after: str | None, rows: dict[str, Any], totals: list[Shape]) -> dict[str, Any]:
    """What its template names."""
    kept = {"q": asked} if asked else {}
    return {
        "noun": noun,
        "list": rows,
        "totals": totals,
        "asked": asked,
        "is_first": after is None,
        "first_query": f"?{urlencode(kept)}" if kept else "",
        "next": f"?{urlencode(kept | {'after': rows['last_id'] or ''})}",
    }


async def totals(visitor: Visitor, noun: Noun) -> list[Shape]:
    """How many are in each status, over all lanes, in the order in which one passes them."""
    counted: dict[str, Shape] = {}
    for one in (await visitor.api.get(f"/v1{noun.path}/totals"))["data"]:
        sum = counted.setdefault(one["status"], {"status": one["status"], "count": 0, "more": False})
        sum["count"] += one["count"]
        sum["more"] = sum["more"] or one["more"]
    return list(counted.values())


def changed(values: dict[str, Any], events: list[Shape]) -> dict[str, Any]:
    """The same rows, as events of those that are open say that they are now."""
    by_id = {one["id"]: one for one in events}
    rows = [
        batch_live.changed({"batch": row}, by_id[row["id"]])["batch"] if row["id"] in by_id else row
        for row in values["list"]["data"]
    ]
    return values | {"list": values["list"] | {"data": rows}}


def mark(events: list[Shape]) -> tuple[Any, ...]:
    """What changes where one came, ended or moved: then the list is asked anew."""
    return tuple((one["id"], one["status"], one["paused"]) for one in events)
