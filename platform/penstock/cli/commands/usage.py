"""`penstock usage`: what one's work took and cost, day by day or hour by hour."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, told

out = console()
_SECONDS: Final = {"1h": 3_600, "1d": 86_400}


def usage(
    last: Annotated[int, typer.Option(help="So many days or hours, this one included.", min=1, max=31)] = 7,
    width: Annotated[Literal["1h", "1d"], typer.Option(help="Days or hours.")] = "1d",
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show tokens, GPU-seconds and cost by day (UTC) and model."""
    seconds = _SECONDS[width]
    start = int(time.time()) // seconds * seconds - (last - 1) * seconds
    asked = {"start_time": start, "bucket_width": width, "limit": last, "group_by": "model"}
    table = Table("from (UTC)", "model", "requests", "input", "cached", "output", "GPU s", "by tokens", "by GPU",
                  box=None, pad_edge=False)  # fmt: skip
    with told(), connected(url, data) as client:
        for bucket in ask(client, "GET", "/usage", params=asked)["data"]:
            begins = datetime.fromtimestamp(bucket["start_time"], UTC).strftime("%Y-%m-%d %H:%M")
            for one in bucket["results"]:
                cost = one["cost"]
                amounts = (f"{cost['tokens']} {cost['currency']}", cost["gpu"]) if cost else ("–", "–")
                counts = (one["num_model_requests"], one["input_tokens"], one["input_cached_tokens"],
                          one["output_tokens"])  # fmt: skip
                gpu = f"{cost['gpu_seconds']:.3f}" if cost else "–"
                table.add_row(begins, one["model"], *(f"{count:,}" for count in counts), gpu, *amounts)
        out.print(table)
