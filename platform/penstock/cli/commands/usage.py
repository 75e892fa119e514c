"""`penstock usage`: what one's work took and cost, day by day or hour by hour."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.printing import Json, say_json, show, table

if TYPE_CHECKING:
    import httpx

_SECONDS: Final = {"1h": 3_600, "1d": 86_400}


class UsageBy(StrEnum):
    """What rows of usage are apart by."""

    MODEL = "model"
    WORK = "work"
    LANE = "lane"
    KEY = "key"


def usage(
    last: Annotated[int, typer.Option(help="So many days or hours, this one included.", min=1, max=31)] = 7,
    width: Annotated[Literal["1h", "1d"], typer.Option(help="Days or hours.")] = "1d",
    by: Annotated[
        list[UsageBy] | None,
        typer.Option(help="Rows apart by model (unless told), work (lines or calls), lane or API key; repeatable."),
    ] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show tokens, GPU-seconds and cost by day (UTC) and model, kind of work, lane or API key."""
    groups = list(dict.fromkeys(by or [UsageBy.MODEL]))
    seconds = _SECONDS[width]
    start = int(time.time()) // seconds * seconds - (last - 1) * seconds
    asked: dict[str, Any] = {"start_time": start, "bucket_width": width, "limit": last}
    asked["group_by"] = sorted({name for group in groups for name in _GROUPS[group][0]})
    with told(), connected(url, data) as client:
        found = _all_pages(client, asked)
        if as_json:
            say_json(found)
            return
        heads = ("from (UTC)", *groups, "requests", "input", "cached", "output", "GPU s", "by tokens", "by GPU")
        show(table(heads, (_row(bucket, one, groups) for bucket in found["data"] for one in bucket["results"])))


def _all_pages(client: httpx.Client, asked: dict[str, Any]) -> dict[str, Any]:
    """As one page: an answer ends early where it has very many results."""
    found: dict[str, Any] = ask(client, "GET", "/usage", params=asked)
    wanted = asked["limit"] - len(found["data"])
    while found["has_more"] and wanted > 0:
        more = ask(client, "GET", "/usage", params=asked | {"limit": wanted, "page": found["next_page"]})
        wanted -= len(more["data"])
        found = {**more, "data": found["data"] + more["data"]}
    return found


def _key(one: dict[str, Any]) -> str:
    return f"{one['api_key_name'] or '–'} · {one['api_key_id']}" if one["api_key_id"] else "not recorded"


def _lane(one: dict[str, Any]) -> str:
    return str(one["lane"] or ("not recorded" if one["batch"] else "waiting calls"))


_GROUPS: Final[dict[UsageBy, tuple[tuple[str, ...], Callable[[dict[str, Any]], str]]]] = {
    UsageBy.MODEL: (("model",), lambda one: str(one["model"])),
    UsageBy.WORK: (("batch",), lambda one: "lines" if one["batch"] else "waiting calls"),
    UsageBy.LANE: (("batch", "lane"), _lane),
    UsageBy.KEY: (("api_key_id",), _key),
}
"""What the API is asked for, and how a result says it."""


def _row(bucket: dict[str, Any], one: dict[str, Any], groups: list[UsageBy]) -> tuple[str, ...]:
    cost = one["cost"]
    amounts = (f"{cost['tokens']} {cost['currency']}", cost["gpu"]) if cost else ("–", "–")
    counts = (one[name] for name in ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens"))
    gpu = f"{cost['gpu_seconds']:.3f}" if cost else "–"
    begins = datetime.fromtimestamp(bucket["start_time"], UTC).strftime("%Y-%m-%d %H:%M")
    names = (_GROUPS[group][1](one) for group in groups)
    return begins, *names, *(f"{count:,}" for count in counts), gpu, *amounts
