"""What an estimate is worth: three batches on the real engine, each estimated before it is made, then run.

The first one finds a model that nobody has measured: its answers are as long as its lines allow, and its time is not
known. The others profit from what the batches before them taught. Nothing else runs meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import load, ours, result, stop
from bench.load import CHAT
from bench.trace import Size

_MEASURED_SECONDS: Final = 20.0
"""The keeper looks every 15 s at what settled slices teach."""
_LOOK_SECONDS: Final = 0.1
_COLUMNS: Final = ("input tokens", "output tokens", "seconds", "cost")


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"[bench-estimate] {text}", flush=True)


def bodies(kind: str, lines: int, seed: int) -> Iterator[dict[str, Any]]:
    """Bodies of one of the three batches, of different lengths."""
    writer, chance = load.Writer("tiny", seed=seed), random.Random(seed)
    for _ in range(lines):
        if kind == "long prompts, short answers":
            size, extra = Size(chance.randint(60, 400), chance.randint(8, 24)), {"ignore_eos": True}
        elif kind == "answers that end by themselves":
            size, extra = Size(chance.randint(10, 60), 256), {"ignore_eos": False, "temperature": 1.0}
        else:
            size, extra = Size(chance.randint(10, 120), chance.choice((16, 32, 128))), {"ignore_eos": True}
        yield writer.chat(size, **extra)


KINDS: Final = ("mixed lengths", "answers that end by themselves", "long prompts, short answers")


async def measure(given: argparse.Namespace, platform: ours.Ours) -> list[dict[str, Any]]:
    """One batch after the other: its estimate, and what it took."""
    found = []
    async with platform.api.session() as api, ours.tended(platform.running):
        for place, kind in enumerate(KINDS):
            file = await asyncio.to_thread(platform.upload, bodies(kind, given.lines, given.seed + place))
            asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
            began = time.monotonic()
            async with api.post("/v1/batches/estimate", json=asked) as answer:
                answer.raise_for_status()
                seen = await answer.json()
            took = time.monotonic() - began
            say(f"{kind}: estimated in {took:.2f} s, from {seen['based_on']}")
            actual = await _run(api, asked)
            found.append({"batch": kind, "lines": given.lines, "estimate_seconds": round(took, 3),
                          "based_on": seen["based_on"], **_compared(seen, actual)})  # fmt: skip
            await asyncio.sleep(_MEASURED_SECONDS if place + 1 < len(KINDS) else 0)
    return found


async def _run(api: Any, asked: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    async with api.post("/v1/batches", json=asked) as answer:
        answer.raise_for_status()
        batch = await answer.json()
    while batch["status"] not in ours.ENDED:
        await asyncio.sleep(_LOOK_SECONDS)
        async with api.get(f"/v1/batches/{batch['id']}") as answer:
            batch = await answer.json()
    if batch["status"] != "completed" or batch["request_counts"]["failed"]:
        raise RuntimeError(f"the batch ended {batch['status']} with {batch['request_counts']}")
    cost = batch.get("cost")
    return {
        "input tokens": batch["usage"]["input_tokens"],
        "output tokens": batch["usage"]["output_tokens"],
        "seconds": time.monotonic() - began,
        "cost": float(cost["tokens"]) if cost else None,
    }


def _compared(seen: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    cost = seen["cost"]
    told = {
        "input tokens": seen["input_tokens"],
        "output tokens": seen["output_tokens"],
        "seconds": seen["seconds"],
        "cost": cost and {name: float(value) for name, value in cost["tokens"].items()},
    }
    found: dict[str, Any] = {}
    for name in _COLUMNS:
        spread, real = told[name], actual[name]
        found[name] = {"actual": real, "estimate": spread}
        if spread and real:
            found[name]["error_percent"] = round(100 * (spread["expected"] / real - 1), 1)
            found[name]["inside"] = spread["low"] <= real <= spread["high"]
    return found


def show(found: list[dict[str, Any]]) -> None:
    """Print the table."""
    for one in found:
        print(f"\n{one['batch']}, {one['lines']} lines; {one['based_on']['input']}, {one['based_on']['output']}")
        for name in _COLUMNS:
            print(f"  {name:14} {_row(one[name])}")


def _row(one: dict[str, Any]) -> str:
    spread, real = one["estimate"], one["actual"]
    if spread is None:
        return f"not known before; {'none' if real is None else f'{real:,.6g}'}"
    told = f"{spread['low']:,.6g} to {spread['high']:,.6g}, expected {spread['expected']:,.6g}"
    if real is None or "error_percent" not in one:
        return told
    return f"{told}; it was {real:,.6g} ({one['error_percent']:+.1f} %{'' if one['inside'] else ', outside'})"


def priced(platform: ours.Ours, say: Callable[[str], None]) -> None:
    """Give the model a price, so that there is a cost to be compared."""
    try:
        platform.cli("models", "price", "tiny", "--input", "0.15", "--cached-input", "0.075", "--output", "0.6")
    except RuntimeError as error:
        say(f"no price, no cost: {error}")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=400, help="of each batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", default="vllm", help="echo: only to try the benchmark itself")
    parser.add_argument("--json", type=Path, default=Path("data/bench-estimate.json"))
    return parser.parse_args()


def main() -> None:
    """Measure, print and write what came out."""
    given = parsed()
    found = result.begin(given)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        with ours.platform(folder, engine=given.engine, arguments=(), source=None, say=say) as platform:
            priced(platform, say)
            found["batches"] = asyncio.run(measure(given, platform))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        result.write(given.json, found)
    show(found["batches"])
    say(str(given.json))


if __name__ == "__main__":
    stop.orderly(main)
