"""`make bench-tenants`: what one tenant that asks too much, or somebody without a key, costs five others.

Each of the five posts a job, looks at a batch and makes a waiting call, again and again, some times a second. Their
times are taken alone, then beside each kind of abuser (`abuser.py`, a process of its own), then alone once more, on one
platform with the simulated echo engine and one API process. What they are beside an abuser is set against the nearer
of the two times alone: the machine's own changes are not the abuser's. Each abuser is alone for a while, too: what it
keeps beside the others is the cost of its shares to itself. With `--limits`, limits are set on it beside the shares.

Prints a table and writes JSON. It measures, and passes no judgement: the target stands beside what came out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from bench import ours, result, stop
from bench.abuser import KINDS
from bench.load import CHAT
from bench.paired import percentile
from rich.console import Console
from rich.table import Table

OTHERS: Final = 5
TARGET: Final = 2.0
"""The others' p99 grows by less than this."""
KEEPS: Final = 0.8
"""Of what it gets alone, as much at least is left to an abuser that has no limit."""
_PAUSE_SECONDS: Final = 0.15
_SETTLE_SECONDS: Final = 2.0
_BODY: Final = {"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "and us"}]}


@dataclass
class Times:
    """Milliseconds of what the others asked, by kind, and how often they were refused."""

    took: dict[str, list[float]] = field(default_factory=lambda: {"job": [], "batch": [], "call": []})
    refused: int = 0

    def json(self) -> dict[str, Any]:
        """For a file."""
        return {
            kind: {f"p{part}": round(percentile(took, part), 1) for part in (50, 99)} | {"count": len(took)}
            for kind, took in self.took.items()
        } | {"refused": self.refused}


def say(words: str) -> None:
    """Tell whoever waits."""
    print(f"[bench] {words}", flush=True)


async def _other(url: str, key: str, batch: str, end: float, times: Times) -> None:
    """One tenant that asks as people do."""
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        asks = {
            "job": lambda: session.post("/v1/jobs", json={"body": _BODY}),
            "batch": lambda: session.get(f"/v1/batches/{batch}"),
            "call": lambda: session.post(CHAT, json=_BODY),
        }
        while time.monotonic() < end:
            for kind, ask in asks.items():
                began = time.monotonic()
                async with ask() as response:
                    await response.read()
                    times.refused += response.status != 200
                times.took[kind].append(1000 * (time.monotonic() - began))
                await asyncio.sleep(_PAUSE_SECONDS)


async def _window(url: str, tenants: Sequence[tuple[str, str]], seconds: float) -> Times:
    times, end = Times(), time.monotonic() + seconds
    await asyncio.gather(*(_other(url, key, batch, end, times) for key, batch in tenants))
    return times


def _beside(kind: str, platform: ours.Ours, abuser: tuple[str, str], tenants: Sequence[tuple[str, str]],
            seconds: float) -> dict[str, Any]:  # fmt: skip
    """A window while somebody asks too much; of no tenants, it is alone."""
    url = platform.running.url
    command = [sys.executable, "-m", "bench.abuser", kind, url, *abuser]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(_SETTLE_SECONDS)
        if tenants:
            times = asyncio.run(_window(url, tenants, seconds))
        else:
            times = Times()
            time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        got, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    answers = json.loads(got)
    per_second = answers.get("401" if kind == "keys" else "200", 0) / (_SETTLE_SECONDS + seconds)
    return times.json() | {"abuser": answers, "abuser_per_second": round(per_second, 1)}


def _tenant(platform: ours.Ours, name: str) -> tuple[str, str]:
    """A tenant's key, and a batch of its own that does not end: nothing of it is done."""
    key = platform.key(name)
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": _BODY}
    client = platform.client.with_options(api_key=key)
    file = client.files.create(file=("one.jsonl", json.dumps(line).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    while client.batches.retrieve(made.id).status == "validating":
        time.sleep(0.1)
    return key, made.id


def measure(given: argparse.Namespace, platform: ours.Ours) -> dict[str, Any]:
    """Every kind of abuser in turn, alone before and after it."""
    tenants = [_tenant(platform, f"other-{n}") for n in range(OTHERS)]
    abuser = _tenant(platform, "abuser")
    if given.limits:
        platform.cli("limits", "set", "abuser", *given.limits)
    url, found = platform.running.url, {}
    asyncio.run(_window(url, tenants, 3))  # warm
    alone = asyncio.run(_window(url, tenants, given.seconds)).json()
    for kind in given.kinds:
        say(f"{kind}: {KINDS[kind]} at once")
        by_itself = _beside(kind, platform, abuser, [], given.seconds)
        time.sleep(given.rest_seconds)
        beside = _beside(kind, platform, abuser, tenants, given.seconds)
        time.sleep(given.rest_seconds)
        after = asyncio.run(_window(url, tenants, given.seconds)).json()
        found[kind] = {"before": alone, "beside": beside, "after": after, "by_itself": by_itself}
        say(json.dumps(beside | {"alone_per_second": by_itself["abuser_per_second"]}))
        alone = after
    return found


def _ratio(row: dict[str, Any], ask: str) -> float:
    alone = max(row["before"][ask]["p99"], row["after"][ask]["p99"])
    return float(row["beside"][ask]["p99"] / alone)


def show(found: dict[str, Any]) -> None:
    """A row for each abuser: p50/p99 alone and beside it, by how much p99 grew, and what the abuser keeps."""
    targets = f"targets: p99 grows less than {TARGET:g} times, an abuser without limits keeps {KEEPS:.0%}"
    table = Table(title=f"Five others beside an abuser, p50/p99 in ms; {targets}")
    asks = (f"{ask}: alone → beside (×)" for ask in ("job", "batch", "call"))
    for name in ("abuser", *asks, "refused", "its answers/s alone → beside"):
        table.add_column(name, justify="left" if name == "abuser" else "right")
    for kind, row in found.items():
        cells = [
            f"{row['before'][ask]['p50']:.0f}/{row['before'][ask]['p99']:.0f} → "
            f"{row['beside'][ask]['p50']:.0f}/{row['beside'][ask]['p99']:.0f} ({_ratio(row, ask):.1f})"
            for ask in ("job", "batch", "call")
        ]
        rates = row["by_itself"]["abuser_per_second"], row["beside"]["abuser_per_second"]
        kept = f" ({rates[1] / rates[0]:.0%})" if rates[0] else ""
        table.add_row(kind, *cells, str(row["beside"]["refused"]), f"{rates[0]:.0f} → {rates[1]:.0f}{kept}")
    Console(width=180).print(table)


def main() -> None:
    """Measure each kind that is asked for, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--limits", nargs="+", default=[], metavar="NAME=NUMBER", help="of the abuser")
    parser.add_argument("--seconds", type=float, default=15.0, help="of one window")
    parser.add_argument("--rest-seconds", type=float, default=5.0, help="after an abuser has ended")
    parser.add_argument("--json", type=Path, default=Path("data/bench-tenants.json"))
    given = parser.parse_args()
    head = result.begin(given) | {"engine": "echo (simulated)"}
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        with ours.platform(folder, engine="echo", arguments=(), source=None, say=say) as platform:
            found = measure(given, platform)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, head | {"rows": found})
    Console().print(result.told(head))
    show(found)


if __name__ == "__main__":
    stop.orderly(main)
