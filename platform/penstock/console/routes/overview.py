"""`/console/overview`: the platform at a glance: backlog, promises, who works, what is late, and what is missing."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import GrantedApi
from penstock.console.drawings.time_chart import TimeChart, time_chart
from penstock.console.live.platform_stream import Streamed
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator

router = APIRouter(prefix=BASE)

Span = Literal["hour", "day", "week"]
_SECONDS: Final[dict[Span, int]] = {"hour": 3_600, "day": 86_400, "week": 7 * 86_400}
_POINTS: Final = 120
_SERIES: Final = (
    ("backlog_tokens", "input_tokens_per_second", "output_tokens_per_second", "slots", "slots_used"),
    ("calls", "lines_per_second", "ttft_p50_ms", "ttft_p95_ms"),
)
_CHARTS: Final = (
    ("Backlog", "tokens", (("backlog_tokens", "open"),)),
    ("Tokens of batches and jobs", "tokens/s",
     (("output_tokens_per_second", "generated"), ("input_tokens_per_second", "of prompts"))),
    ("Time to first token of calls", "ms", (("ttft_p95_ms", "p95"), ("ttft_p50_ms", "p50"))),
    ("Slots of engines", "slots", (("slots_used", "held"), ("slots", "all"))),
    ("Waiting calls inside", "calls", (("calls", "calls"),)),
    ("Lines answered", "lines/s", (("lines_per_second", "lines"),)),
)  # fmt: skip


@router.get("/overview")
async def overview(
    request: Request,
    visitor: LoggedInOperator,
    live: Annotated[str, Query(max_length=10)] = "",
    span: Span = "hour",
    model: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """The overview with its charts, of all models or one."""
    now, found = await asyncio.gather(_now(visitor.api), _samples(visitor.api, span, model))
    promised = next((one["promised_ttft_p95_ms"] for one in now["seen"]["models"] if one["model"] == model), None)
    charts = _charts(found, promised)
    values = now | {"live": live != "off", "span": span, "spans": list(_SECONDS), "charted": model, "charts": charts}
    return pages.page(request, visitor, "overview.html", **values)


@router.get("/overview/stream")
async def overview_stream(stream: Streamed) -> Response:
    """What is now, as it changes."""
    return stream.of("overview_now.html", _now)


async def _now(api: GrantedApi) -> dict[str, Any]:
    seen = await api.get("/v1/admin/overview")
    hours = [one["backlog_hours"] for one in seen["models"] if one["backlog_hours"] is not None]
    return {"seen": seen, "most_hours": max(hours, default=None)}


async def _samples(api: GrantedApi, span: Span, model: str) -> list[dict[str, Any]]:
    """What the charts show, in two questions: a question is of so many series at most."""
    until = int(time.time())
    query: dict[str, Any] = {"since": until - _SECONDS[span], "step": _SECONDS[span] // _POINTS}
    asked = [api.get("/v1/admin/samples", query | {"series": series, "model": model or None}) for series in _SERIES]
    return list(await asyncio.gather(*asked))


def _charts(found: list[dict[str, Any]], promised: float | None) -> list[TimeChart]:
    """The charts; `promised` is the charted model's time to first token, in ms."""
    times = found[0]["times"]
    by_name: dict[str, list[float | None]] = {one["series"]: one["values"] for part in found for one in part["data"]}
    nothing: list[float | None] = [None] * len(times)
    return [
        time_chart(
            title,
            unit,
            times,
            [(name, _fitting(by_name.get(key, nothing), len(times))) for key, name in lines],
            promised if unit == "ms" else None,
        )
        for title, unit, lines in _CHARTS
    ]


def _fitting(values: list[float | None], points: int) -> list[float | None]:
    """So many values: the second question may come a span later than the first."""
    return ([None] * points + values)[-points:] if points else []
