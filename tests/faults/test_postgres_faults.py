"""PostgreSQL that crashes again and again, or commits and can't say so: nothing is lost, doubled or wrongly failed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.live import CHAT, chat, jsonl, said
from faults.cases import further
from faults.house import KEY, House
from faults.proxy import Proxy
from faults.servers import PostgresServer

pytestmark = pytest.mark.timeout(240)

# An API that waits for a connection, then for a log-in: longer than this nobody waits for an answer.
_ENDS_WITHIN_SECONDS = 25.0
_BOUND_SECONDS = 15.0


@dataclass
class Site:
    """A house on a PostgreSQL of its own; the API, one gpu worker and everybody else each have a network to it."""

    house: House
    server: PostgresServer
    api: Proxy
    gpu: Proxy
    others: Proxy
    journal: Path

    def asked(self, texts: Sequence[str]) -> int:
        """How often the engines were asked these texts."""
        wanted = set(texts)
        return sum(line.split("\t")[2] in wanted for line in self.journal.read_text().splitlines())

    def crashes(self, id: str) -> int:
        """How many leases of the batch were reaped."""
        return int(self.house.ask("select sum(crashes) from slices where batch = %s", id))

    def recorded(self, id: str) -> int:
        """How many of the batch's lines are recorded."""
        return int(self.house.ask("select coalesce(sum(completed), 0) from slices where batch = %s", id))


@pytest.fixture(scope="module")
def site(short_dir: Path, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all of this module: each fault is over at the end of its test."""
    own, folder = short_dir / "own", tmp_path_factory.mktemp("site")
    own.mkdir()
    with PostgresServer(own) as server, ExitStack() as stack:
        api, gpu, others = (stack.enter_context(Proxy(server.socket)) for _ in range(3))
        ways = {"api-1": api, "gpu-1": gpu, "gpu-2": others, "io-1": others, "keeper-1": others}
        house = House(
            server.url,
            valkey_url,
            folder,
            gpus=2,
            own={name: {"database_url": server.proxied(way.port)} for name, way in ways.items()},
            engine_arguments=[f"--journal={folder / 'journal'}"],
            slice_lines="250",  # so that both workers have some of each batch
            lease_seconds="6",
            beat_seconds="1",
            close_grace_seconds="1",
            worker_gone_seconds="8",
        )
        with house:
            yield Site(house, server, api, gpu, others, folder / "journal")


@pytest.fixture(autouse=True)
def healed(site: Site) -> Iterator[None]:
    """Nothing is broken when a test begins."""
    yield
    for network in (site.api, site.gpu, site.others):
        network.heal()


class Caller:
    """Somebody who creates jobs and looks at them all the time, whatever the answer is."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, float, Mapping[str, str]]] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        body = {"messages": [{"role": "user", "content": "of the caller"}]}
        with httpx.Client(
            base_url=f"{self._url}/v1", headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False
        ) as http:
            while not self._stop.wait(0.05):
                for ask in (
                    lambda: http.get("/jobs"),
                    lambda: http.post("/jobs", json={"model": "tiny", "body": body}),
                ):
                    began = time.monotonic()
                    answer = ask()
                    self.answers.append((answer.status_code, time.monotonic() - began, answer.headers))

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def statuses(self) -> Counter[int]:
        """How often each status came."""
        return Counter(status for status, _, _ in self.answers)

    @property
    def longest_seconds(self) -> float:
        """The longest wait."""
        return max(seconds for _, seconds, _ in self.answers)


def each_line_once(house: House, id: str, texts: list[str], seconds: float = 90.0) -> None:
    batch = house.client.ended(id, seconds)
    assert batch.status == "completed", batch
    output = house.client.file(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(len(texts))]
    assert [said(line) for line in output] == texts
    assert batch.error_file_id is None
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(texts), 0)
    doubled = (
        "select count(*) from (select slice, l from segments, unnest(lines) l group by 1, 2 having count(*) > 1) d"
    )
    assert house.ask(doubled) == 0


def submitted(house: House, texts: list[str]) -> str:
    return house.client.submit([chat(f"line-{n}", text) for n, text in enumerate(texts)]).id


@pytest.mark.slow
def test_crashes_of_postgres_in_a_row_cost_503s_and_nothing_else(site: Site) -> None:
    house, server = site.house, site.server
    texts = [f"text {n} [[sleep 1500]]" for n in range(2_000)]
    id, recorded = submitted(house, texts), 0
    with Caller(house.url) as caller:
        # The last time it is away for longer than a lease lives.
        for away_seconds in (0.0, 1.0, 8.0):
            before = recorded
            house.until(lambda before=before: site.recorded(id) > before, "answers are recorded after the outage", 25)
            assert site.recorded(id) < len(texts), "the batch is over too early to test anything"
            server.end()
            time.sleep(away_seconds)
            server.start()
            recorded = site.recorded(id)
        each_line_once(house, id, texts)
    again, crashes = site.asked(texts) - len(texts), site.crashes(id)
    print(f"statuses {caller.statuses}, longest {caller.longest_seconds:.1f} s, asked again {again}, reaped {crashes}")
    assert set(caller.statuses) == {200, 503}
    assert all(headers.get("retry-after") for status, _, headers in caller.answers if status == 503)
    assert caller.longest_seconds < _BOUND_SECONDS
    assert (crashes, again) == (0, 0), "an outage is nobody's silence: what was in flight is kept and recorded"


def test_a_create_whose_commit_was_not_heard_of_makes_one_thing_under_its_key(site: Site) -> None:
    http = site.house.client.http
    count = "select (select count(*) from files), (select count(*) from batches)"
    before = site.house.rows(count)[0]

    def create(path: str, key: str, table: str, **asked: Any) -> dict[str, Any]:
        """Ask under this key; the commit of the insert happens and is not heard of, so the client asks again."""
        site.api.lose_answers(to=b"COMMIT", after=f"insert into {table}".encode(), times=1)
        unheard, again = (http.post(path, headers={"idempotency-key": key}, **asked) for _ in range(2))
        assert (unheard.status_code, again.status_code) == (503, 200), again.text
        assert unheard.headers["retry-after"]
        found: dict[str, Any] = again.json()
        return found

    content = jsonl([chat("line-0", "one")])
    upload = {"files": {"file": ("in.jsonl", content)}, "data": {"purpose": "batch"}}
    file = create("/files", "the-file", "files", **upload)
    terms = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = create("/batches", "the-batch", "batches", json=terms)
    body = {"messages": [{"role": "user", "content": "one"}]}
    job = create("/jobs", "the-job", "batches", json={"model": "tiny", "body": body})
    each_line_once(site.house, batch["id"], ["one"])
    done = http.get(f"/jobs/{job['id']}", params={"wait": 30}).json()
    assert done["status"] == "completed"
    after = site.house.rows(count)[0]
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2), "the file and its output; the batch and the job"


@pytest.mark.slow
def test_workers_whose_commits_are_not_heard_of_repeat_them_without_a_trace(site: Site) -> None:
    networks = (site.gpu, site.others)
    before = sum(network.lost for network in networks)
    site.gpu.lose_answers(to=b"COMMIT", every=3)
    site.others.lose_answers(to=b"COMMIT", every=9)
    texts = [f"lossy {n} [[sleep 100]]" for n in range(2_400)]
    id = submitted(site.house, texts)
    each_line_once(site.house, id, texts)
    lost = sum(network.lost for network in networks) - before
    again, crashes = site.asked(texts) - len(texts), site.crashes(id)
    print(f"{lost} commits were not heard of, asked again {again}, reaped {crashes}")
    assert lost > 10
    assert (crashes, again) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [Proxy.cut, *further(Proxy.hang)], ids=["cut", "half-open"])
def test_a_worker_that_is_cut_off_loses_its_lease_to_one_winner_and_comes_back_by_itself(
    site: Site, breaks: Callable[[Proxy], None]
) -> None:
    house = site.house
    # Enough for both workers, and slow enough to last longer than a lease.
    texts = [f"{breaks.__name__} {n} [[sleep 2500]]" for n in range(2_500)]
    id, alone = submitted(house, texts), house.holder("gpu-1")
    mine = "select count(*) from leases where batch = %s and holder = %s and closed_at is null"
    house.until(lambda: house.ask(mine, id, alone), "gpu-1 holds some of it", 30)
    house.until(lambda: site.recorded(id), "something is recorded", 30)
    breaks(site.gpu)
    house.until(lambda: site.crashes(id), "its leases are reaped", 25)
    site.gpu.heal()
    each_line_once(house, id, texts, 120)
    again = site.asked(texts) - len(texts)
    print(f"asked again {again}, reaped {site.crashes(id)}")
    # What was in flight at gpu-1 (128 at most), and what it asked until it trusted its lease no more (0.9 of 6 s).
    assert again <= 128 * 4
    assert house.lives("gpu-1")
    assert house.holder("gpu-1") == alone, "the process is the same"
    house.terminate("gpu-2")
    house.wait("gpu-2")
    try:
        last = [f"after {breaks.__name__} {n}" for n in range(10)]
        each_line_once(house, submitted(house, last), last, 60)
    finally:
        house.start("gpu-2")
        house.wait_until_ready()


@pytest.mark.slow
def test_every_process_ends_in_time_while_postgres_hangs(site: Site) -> None:
    house = site.house

    def asks() -> None:
        with suppress(httpx.HTTPError):
            httpx.get(f"{house.url}/v1/jobs", headers={"authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False)

    def waits() -> int:
        return (house.logs / "keeper-1.log").read_text().count("_waits")

    asks()  # that the key was used is still to be written
    before = waits()
    for network in (site.api, site.gpu, site.others):
        network.hang()
    callers = [threading.Thread(target=asks) for _ in range(8)]
    for caller in callers:
        caller.start()
    house.until(lambda: waits() > before, "the keeper waits for the database")
    names = list(house.residents)
    took: dict[str, float] = {}

    def wait(name: str) -> None:
        assert house.wait(name, 90) == 0, house.tell(name)
        took[name] = round(time.monotonic() - began, 1)

    began = time.monotonic()
    for name in names:
        house.terminate(name)
    with ThreadPoolExecutor() as pool:
        list(pool.map(wait, names))
    for caller in callers:
        caller.join()
    for network in (site.api, site.gpu, site.others):
        network.heal()
    for name in names:
        house.start(name)
    house.wait_until_ready()
    print(took)
    assert max(took.values()) < _ENDS_WITHIN_SECONDS, took
