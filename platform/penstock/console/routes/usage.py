"""`/console/usage`: what the tenant's work took and cost, by time and model, key, lane or kind of work; as CSV."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from penstock.console import csv_export, pages
from penstock.console.drawings import usage_chart, usage_sums
from penstock.console.drawings.usage_sums import UsageSum
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn, Visitor

router = APIRouter(prefix=BASE)


@dataclass(frozen=True)
class UsageWindow:
    """So many buckets of one width, the present one last."""

    words: str
    width: str
    seconds: int
    count: int
    pattern: str


WINDOWS: Final = {
    "24h": UsageWindow("24 hours", "1h", 3_600, 24, "%Y-%m-%d %H:%M"),
    "7d": UsageWindow("7 days", "1d", 86_400, 7, "%Y-%m-%d"),
    "31d": UsageWindow("31 days", "1d", 86_400, 31, "%Y-%m-%d"),
}
GROUPS: Final = {
    "model": "By model", "key": "By API key", "lane": "By lane", "batch": "Batches and calls apart",
}  # fmt: skip
_HEAD_OF: Final = {"model": "Model", "key": "API key", "lane": "Lane", "batch": "Work"}
_ASKED: Final = {"model": ["model"], "key": ["api_key_id"], "lane": ["batch", "lane"], "batch": ["batch"]}
"""What the API groups by, so that each part has its words."""
_HEADS: Final = (
    "from_utc", "group", "requests", "input_tokens", "input_cached_tokens", "output_tokens", "output_reused_tokens",
    "gpu_seconds", "cost", "saved", "currency",
)  # fmt: skip

Span = Annotated[Literal["24h", "7d", "31d"], Query()]
By = Annotated[Literal["model", "key", "lane", "batch"], Query()]


@router.get("/usage")
async def usage(request: Request, visitor: LoggedIn, span: Span = "7d", by: By = "model") -> Response:
    """Sums, a chart, and the table that it is made of."""
    buckets = await _buckets(visitor, span, by)
    spans = [usage_sums.total([bucket]) for bucket in buckets]
    rows = [(_begins(bucket, span), one) for bucket in reversed(buckets) for one in usage_sums.by([bucket], by)]
    values: dict[str, Any] = {
        "total": usage_sums.total(buckets),
        "groups": usage_sums.by(buckets, by),
        "rows": rows,
        "bars": usage_chart.bars(spans),
        "most": max((one.tokens for one in spans), default=0),
        "first": _begins(buckets[0], span),
        "last": _begins(buckets[-1], span),
        "chart": usage_chart,
        "windows": WINDOWS,
        "group_words": GROUPS,
        "group_head": _HEAD_OF[by],
        "span": span,
        "by": by,
        "server": str(request.base_url).rstrip("/"),
    }
    return pages.page(request, visitor, "usage.html", **values)


@router.get("/usage.csv")
async def usage_csv(request: Request, visitor: LoggedIn, span: Span = "7d", by: By = "model") -> Response:
    """The same table, to be saved."""
    buckets = await _buckets(visitor, span, by)
    rows = ((_begins(bucket, span), *_cells(one)) for bucket in buckets for one in usage_sums.by([bucket], by))
    headers = {"content-disposition": f'attachment; filename="usage-{span}-{by}.csv"'}
    return Response(csv_export.written(_HEADS, rows), headers=headers, media_type="text/csv")


async def _buckets(visitor: Visitor, span: str, by: str) -> list[dict[str, Any]]:
    window = WINDOWS[span]
    start = int(time.time()) // window.seconds * window.seconds - (window.count - 1) * window.seconds
    query: dict[str, Any] = {"start_time": start, "bucket_width": window.width, "group_by": _ASKED[by]}
    found: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    while len(found) < window.count and page.get("has_more", True):  # a page with very many results ends early
        more = {"limit": window.count - len(found), "page": page.get("next_page")}
        page = await visitor.api.get("/v1/usage", query | more)
        found += page["data"]
    return found


def _begins(bucket: Mapping[str, Any], span: str) -> str:
    return datetime.fromtimestamp(bucket["start_time"], UTC).strftime(WINDOWS[span].pattern)


def _cells(one: UsageSum) -> tuple[object, ...]:
    counts = (one.requests, one.input_tokens, one.cached_tokens, one.output_tokens, one.reused_tokens)
    return one.name, *counts, round(one.gpu_seconds, 3), one.cost_text or "", one.saved_text or "", one.currency
