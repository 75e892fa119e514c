"""`make bench-canary`: whether a canary gets its share, a session one version, and a rollback holds at once.

Two API processes, two workers with two versions of one model, an alias that gives the new one 10 %. Calls with
sessions go to both APIs, and batches of a few lines are made; what each got is counted, and stands beside the bound of
a fair coin (the probability of a share outside is one in a thousand). Then the alias is rolled back while calls come,
and the time is taken until the last call that still got the new version began. Last a batch that was planned for the
new version runs while the alias is rolled back and its worker is killed and started again. Ends with 1 if anything is
outside its bound.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx
from bench import result, stop
from e2e.live import chat
from faults.house import KEY, MODEL, House
from faults.servers import PostgresServer, ValkeyServer
from rich.console import Console
from rich.table import Table

from penstock.service.models import aliases

WEIGHT: Final = 10
Z: Final = 3.29
"""Standard deviations that a fair share goes beyond once in a thousand times."""
WITHIN_SECONDS: Final = 2.0
_LOOKED_AT_SECONDS: Final = 3.0
"""How long calls go on after a rollback."""
STRAY: Final = """
    select count(*) from leases l join slices s on s.id = l.slice
    join workers w on w.id = l.holder join model_versions v on v.queue = s.model
    where v.number <> w.model_version"""


@dataclass
class Row:
    """One measure beside its bound."""

    what: str
    found: float
    least: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether it is within."""
        return self.least <= self.found <= self.most


def share(what: str, new: int, of: int) -> Row:
    """A share in percent beside what a fair draw of so many gives."""
    spread = 100 * Z * (WEIGHT / 100 * (1 - WEIGHT / 100) / of) ** 0.5
    return Row(f"{what}: new version, %", 100 * new / of, WEIGHT - spread, WEIGHT + spread)


@dataclass
class Versions:
    """The numbers of the two, as they registered."""

    old: int
    new: int


def settle(house: House) -> Versions:
    """Which worker came first is chance: `old` is the one without an argument, and the alias begins with it."""
    rows = dict(house.rows("select cardinality(arguments), number from model_versions where model = %s", MODEL))
    found = Versions(rows[0], rows[2])
    house.run(aliases.change, MODEL, "stable", {found.old: 100})
    return found


def ask(client: httpx.Client, url: str, session: str | None, model: str = MODEL) -> str:
    """One call; the version that answered."""
    headers = {"authorization": f"Bearer {KEY}"} | ({"x-session-id": session} if session else {})
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    answer = client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    while answer.status_code == 503:  # all are busy, on a small machine
        time.sleep(0.2)
        answer = client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    answer.raise_for_status()
    return answer.headers["x-penstock-version"]


def calls(house: House, versions: Versions, given: argparse.Namespace) -> list[Row]:
    """Calls of sessions, each asked several times at both APIs, and as many without."""
    sessions = given.calls // 4
    seen: dict[str, set[str]] = defaultdict(set)
    alone: Counter[str] = Counter()
    with httpx.Client(trust_env=False, timeout=60) as client, ThreadPoolExecutor(16) as pool:

        def one(number: int) -> None:
            session = f"session-{number % sessions}"
            seen[session].add(ask(client, house.urls[number % 2], session))

        def other(number: int) -> None:
            alone[ask(client, house.urls[number % 2], None)] += 1

        list(pool.map(one, range(given.calls)))
        list(pool.map(other, range(given.calls // 2)))
    new = f"v{versions.new}"
    split = sum(len(found) > 1 for found in seen.values())
    return [
        share(f"{sessions} sessions ({given.calls} calls)", sum(new in found for found in seen.values()), sessions),
        Row("sessions that were split", split, 0, 0),
        share(f"{given.calls // 2} calls without one", alone[new], given.calls // 2),
    ]


def batches(house: House, versions: Versions, given: argparse.Namespace) -> list[Row]:
    """Batches of two lines each, to their ends."""
    http = house.client.http
    made = [house.client.submit([chat(f"{n}-{line}", "hello") for line in range(2)]).id for n in range(given.batches)]
    house.until(lambda: house.ask("select count(*) from batches where state = 'completed'") == len(made),
                "the batches end", 900)  # fmt: skip
    found = Counter(http.get(f"/batches/{id}").json()["versions"][MODEL][0] for id in made)
    return [
        share(f"{given.batches} batches", found[f"v{versions.new}"], given.batches),
        Row("slices that another version's worker had", house.ask(STRAY), 0, 0),
    ]


def rollbacks(house: House, versions: Versions, given: argparse.Namespace) -> Row:
    """The longest time from a rollback's commit to the beginning of a call, at either API, that knew nothing of it."""
    worst = max(_rolled_back(house, f"v{versions.new}", versions.new) for _ in range(given.rollbacks))
    return Row(f"{given.rollbacks} rollbacks: last call to the new version after, s", worst, 0, WITHIN_SECONDS)


def _rolled_back(house: House, new: str, number: int) -> float:
    """Two clients at each API call while the alias goes to the new version and back; seconds."""
    house.run(aliases.promote, MODEL, number)
    seen, over, began_at = {url: threading.Event() for url in house.urls}, threading.Event(), []

    def keep_asking(url: str) -> list[float]:
        """When the calls began that the new version answered."""
        with httpx.Client(trust_env=False, timeout=60) as client:
            found = []
            while not over.is_set():
                began = time.monotonic()
                if ask(client, url, None) == new:
                    found.append(began)
                    seen[url].set()
            return found

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, url) for url in house.urls * 2]
        assert all(one.wait(60) for one in seen.values()), "the new version answers at each API"
        house.run(aliases.rollback, MODEL)
        committed = time.monotonic()
        over.wait(_LOOKED_AT_SECONDS)
        over.set()
        for one in asking:
            began_at += one.result()
    assert began_at, "the new version answered before"
    return max(0.0, max(began_at) - committed)


def pinned(house: House, versions: Versions) -> list[Row]:
    """A batch that was planned for the new version, over a rollback and deaths of its worker."""
    house.run(aliases.promote, MODEL, versions.new)
    lines = [chat(str(n), f"hello {n}") for n in range(2_000)]
    id = house.client.submit(lines).id
    house.until(lambda: house.ask("select state from batches where id = %s", id) == "in_progress", "it is planned")
    house.run(aliases.rollback, MODEL)
    house.until(lambda: house.ask("select sum(completed) from slices where batch = %s", id), "some lines are answered")
    for _ in range(2):
        house.kill("gpu-2")
        house.start("gpu-2")
    house.client.ended(id, 300)
    told = house.client.http.get(f"/batches/{id}").json()
    strays = house.ask(STRAY + " and s.batch = %s", id)
    right = told["versions"] == {MODEL: [f"v{versions.new}"]} and told["request_counts"]["completed"] == len(lines)
    return [
        Row("pinned batch: slices elsewhere", strays, 0, 0),
        Row("pinned batch: whole, and of its version", right, 1, 1),
    ]


def measure(given: argparse.Namespace, folder: Path) -> list[Row]:
    """All of it, in one house."""
    # On a machine that does other things too, a worker that is late with its load report is not gone.
    settings = {"ingress_gone_seconds": "30", "lease_seconds": "4", "beat_seconds": "1", "tick_seconds": "0.5"}
    with PostgresServer(folder) as postgres, ValkeyServer(folder) as valkey:
        house = House(postgres.url, valkey.url, folder / "house", apis=2, ios=2, gpus=2, **settings)
        second = house.residents["gpu-2"]
        second.arguments = [*second.arguments, "--engine-arg=--output-tokens=7", "--engine-arg=--latency-ms=40"]
        with house:
            house.wait_until_answering(300)
            versions = settle(house)
            print(f"[bench] old is v{versions.old}, new is v{versions.new}", flush=True)
            house.run(aliases.promote, MODEL, versions.new, "stable", WEIGHT)
            time.sleep(2.0)
            rows = calls(house, versions, given)
            print("[bench] calls are counted", flush=True)
            rows += batches(house, versions, given)
            print("[bench] batches are counted", flush=True)
            house.run(aliases.change, MODEL, "stable", {versions.old: 100})
            rows.append(rollbacks(house, versions, given))
            rows += pinned(house, versions)
    return rows


def main() -> None:
    """Measure, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--rollbacks", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("data/bench-canary.json"))
    given = parser.parse_args()
    head = result.begin(given)
    folder = Path(tempfile.mkdtemp(prefix="ps-bench-"))
    try:
        rows = measure(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, head | {"rows": [asdict(row) | {"holds": row.holds} for row in rows]})
    table = Table(title=f"A canary of {WEIGHT} %")
    for name in ("what", "found", "from", "to", "holds"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(row.what, *(f"{value:.2f}" for value in (row.found, row.least, row.most)), str(row.holds))
    Console(width=120).print(result.told(head), table)
    sys.exit(not all(row.holds for row in rows))


if __name__ == "__main__":
    stop.orderly(main)
