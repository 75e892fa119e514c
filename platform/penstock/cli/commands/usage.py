"""`penstock usage`: what one's work took and cost, day by day or hour by hour."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.printing import Json, say_json, show, table

_SECONDS: Final = {"1h": 3_600, "1d": 86_400}


def usage(
    last: Annotated[int, typer.Option(help="So many days or hours, this one included.", min=1, max=31)] = 7,
    width: Annotated[Literal["1h", "1d"], typer.Option(help="Days or hours.")] = "1d",
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show tokens, GPU-seconds and cost by day (UTC) and model."""
    seconds = _SECONDS[width]
    start = int(time.time()) // seconds * seconds - (last - 1) * seconds
    asked = {"start_time": start, "bucket_width": width, "limit": last, "group_by": "model"}
    with told(), connected(url, data) as client:
        found = ask(client, "GET", "/usage", params=asked)
        if as_json:
            say_json(found)
            return
        heads = ("from (UTC)", "model", "requests", "input", "cached", "output", "GPU s", "by tokens", "by GPU")
        show(table(heads, (_row(bucket, one) for bucket in found["data"] for one in bucket["results"])))


def _row(bucket: dict[str, Any], one: dict[str, Any]) -> tuple[str, ...]:
    cost = one["cost"]
    amounts = (f"{cost['tokens']} {cost['currency']}", cost["gpu"]) if cost else ("–", "–")
    counts = (one[name] for name in ("num_model_requests", "input_tokens", "input_cached_tokens", "output_tokens"))
    gpu = f"{cost['gpu_seconds']:.3f}" if cost else "–"
    begins = datetime.fromtimestamp(bucket["start_time"], UTC).strftime("%Y-%m-%d %H:%M")
    return begins, one["model"], *(f"{count:,}" for count in counts), gpu, *amounts
