"""`make bench-limits`: how exact a limit is: 10,000 requests of one tenant over eight API processes, 1,000 a minute.

The processes are real ones over one Postgres and one Valkey; the requests are cheap and go to all of them in turn.
What is answered other than 429 stands beside the bound that docs/tenants.md states: the limit, a fiftieth of it for
each process, and what flowed back while it lasted. Ends with 1 if it is beyond that.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench import result, stop
from faults.house import House
from faults.rush import Rush, rush
from faults.servers import PostgresServer, ValkeyServer
from rich.console import Console
from rich.table import Table

from penstock.service.admin import limits


def measure(given: argparse.Namespace, folder: Path) -> list[Rush]:
    """So many rounds, each by a tenant of its own, whose bucket is full."""
    found = []
    with (
        PostgresServer(folder) as postgres,
        ValkeyServer(folder) as valkey,
        House(postgres.url, valkey.url, folder / "house", apis=given.processes, keepers=0, ios=0, gpus=0, wait=False)
        as house,
    ):  # fmt: skip
        print(f"[bench] {given.processes} API processes start", flush=True)
        house.wait_until_answering(300)
        for number in range(1, given.rounds + 1):
            key = house.key_of(f"round-{number}")
            house.run(limits.change, f"round-{number}", {"requests_per_minute": given.per_minute})
            found.append(rush(house.urls, key, given.requests, given.at_once))
            print(f"[bench] round {number}: {dict(found[-1].answers)}", flush=True)
    return found


def show(given: argparse.Namespace, found: list[Rush]) -> None:
    """A row for each round."""
    title = f"{given.requests} requests over {given.processes} processes, {given.per_minute} a minute allowed"
    table = Table(title=title)
    for name in ("round", "seconds", "let through", "of them flowed back", "beyond the limit", "stated", "bound"):
        table.add_column(name, justify="right")
    for number, one in enumerate(found, 1):
        bound, ahead = one.bound(given.per_minute), one.ahead(given.per_minute)
        flowed = bound - given.per_minute - ahead
        beyond = max(0, one.let_through - given.per_minute - flowed)
        table.add_row(*map(str, (number, f"{one.seconds:.1f}", one.let_through, flowed, beyond, ahead, bound)))
    Console(width=120).print(table)


def main() -> None:
    """Measure, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--per-minute", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("data/bench-limits.json"))
    given = parser.parse_args()
    head = result.begin(given)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        found = measure(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = [{"answers": dict(one.answers), "seconds": one.seconds, "bound": one.bound(given.per_minute)}
            for one in found]  # fmt: skip
    result.write(given.json, head | {"rounds": rows})
    Console().print(result.told(head))
    show(given, found)
    sys.exit(any(one.let_through > one.bound(given.per_minute) for one in found))


if __name__ == "__main__":
    stop.orderly(main)
