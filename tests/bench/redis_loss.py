"""`make bench-redis`: what a Redis that loses everything every two seconds costs a batch, on the simulated echo engine.

Undisturbed and disturbed batches take turns on one platform; the ratio of their medians is the result. A line that is
missing or doubled ends it with an error; a bad ratio is only printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from bench import result, stop
from e2e.live import ENDED, chat, jsonl
from faults.house import House
from faults.servers import PostgresServer, ValkeyServer


def lines_per_second(house: House, data: bytes, count: int) -> float:
    """One batch from its create to its end; raise unless every line came back once, in order."""
    client = house.client.sdk
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    began = time.monotonic()
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in ENDED:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    seconds = time.monotonic() - began
    got = [line["custom_id"] for line in house.client.file(batch.output_file_id)]
    assert got == [f"line-{n}" for n in range(count)], "a line is missing, doubled or out of order"
    return count / seconds


def main() -> None:
    """Measure in turns, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--every-seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path, default=Path("data/bench-redis.json"))
    given = parser.parse_args()
    head = result.begin(given)
    data = jsonl([chat(f"line-{n}", f"question {n}", max_tokens=16) for n in range(given.lines)])
    rates: dict[str, list[float]] = {"undisturbed": [], "emptied": []}
    with (
        tempfile.TemporaryDirectory(prefix="ps-") as name,
        PostgresServer(Path(name)) as postgres,
        ValkeyServer(Path(name)) as valkey,
        House(postgres.url, valkey.url, Path(name) / "house") as house,
    ):
        lines_per_second(house, data, given.lines)  # what is warm afterwards is warm for both
        for _ in range(given.repeats):
            for how, rate in rates.items():
                disturbed = valkey.emptied(given.every_seconds) if how == "emptied" else nullcontext()
                with disturbed:
                    rate.append(lines_per_second(house, data, given.lines))
                print(f"[bench] {how}: {rate[-1]:.0f} lines/s", flush=True)
    medians = {how: statistics.median(rate) for how, rate in rates.items()}
    ratio = medians["emptied"] / medians["undisturbed"]
    found = {"engine": "echo (simulated)", "lines": given.lines, "lines_per_second": rates, "ratio": round(ratio, 3)}
    result.write(given.json, head | found)
    print(f"[bench] {given.lines} lines, FLUSHALL every {given.every_seconds:g} s: {ratio:.2f} of the undisturbed rate")


if __name__ == "__main__":
    stop.orderly(main)
