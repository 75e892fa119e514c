"""Waiting calls through real APIs and workers while things die: none hangs, none is lost without a word."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from e2e.live import CHAT, TLS, until
from faults.cases import further
from faults.house import KEY, MODEL, House
from faults.servers import PostgresServer, ValkeyServer

from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.store.engine import sync_engine

pytestmark = pytest.mark.timeout(240)

# A call whose worker died has an outcome to hear and a death to note; a poison one waits for more load reports.
_SOON_SECONDS = 15.0


@dataclass
class Site:
    """A house of two APIs and three gpu workers, on servers that a test may stop."""

    house: House
    postgres: PostgresServer
    valkey: ValkeyServer
    journal: Path

    @property
    def urls(self) -> list[str]:
        """Where the APIs listen."""
        return [f"http://127.0.0.1:{self.house.residents[name].arguments[-1]}" for name in self.house.named("api")]

    def asked(self, text: str) -> list[int]:
        """Pids of the engines that were asked this, in order."""
        lines = [line.split("\t") for line in self.journal.read_text().splitlines()]
        return [int(pid) for _, pid, said in lines if said.startswith(text)]

    def engine_pids(self, gpu: str) -> set[int]:
        return {process.pid for process in self.house.engine(gpu)}

    def all_open(self) -> None:
        """Wait until all workers take calls."""
        count = "select count(*) from workers where open and load_reported_at > now() - interval '3 seconds'"
        self.house.until(lambda: self.house.ask(count) == 3, "all ingresses are open")

        def known() -> bool:
            try:
                pages = [httpx.get(f"{url}/metrics", trust_env=False, verify=TLS).text for url in self.urls]
            except httpx.HTTPError:
                return False
            return all(_open(page) == 3 for page in pages)

        self.house.until(known, "all APIs know it")


def _open(page: str) -> int:
    return sum(line.startswith("penstock_ingress_open{") and line.endswith(" 1.0") for line in page.splitlines())


@pytest.fixture(scope="module")
def site(short_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    own, folder = short_dir / "calls", tmp_path_factory.mktemp("calls")
    own.mkdir()
    journal = folder / "journal"
    journal.touch()
    with (
        PostgresServer(own) as server,
        ValkeyServer(own) as valkey,
        House(
            server.url,
            valkey.url,
            folder,
            apis=2,
            gpus=3,
            engine_arguments=["--latency-ms=20", "--itl-ms=40", "--max-num-seqs=96", f"--journal={journal}"],
            ingress_token="the-token-of-the-house",
            key_cache_seconds="1",
            ingress_gone_seconds="3",
            slow_body_seconds="4",
        ) as house,
    ):
        yield Site(house, server, valkey, journal)


@pytest.fixture(autouse=True)
def whole(site: Site) -> None:
    """Each test finds all workers open."""
    site.all_open()


def ask(url: str, text: str, key: str = KEY, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}{CHAT}", json=body, headers=headers, timeout=60, trust_env=False, verify=TLS)


@dataclass
class Stream:
    """One stream, read by a thread of its own."""

    url: str
    text: str
    raw: bytes = b""
    status: int = 0
    worker: str = ""
    failed: Exception | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": self.text}], "stream": True}
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            with (
                httpx.Client(timeout=60, trust_env=False) as client,
                client.stream("POST", f"{self.url}{CHAT}", json=body, headers=headers) as answer,
            ):
                self.status, self.worker = answer.status_code, answer.headers.get("x-penstock-worker", "")
                for piece in answer.iter_raw():
                    self.raw += piece
        except Exception as error:
            self.failed = error

    @property
    def events(self) -> list[Any]:
        """What came; every event is whole."""
        assert self.raw.endswith(b"\n\n")
        found = [one.removeprefix(b"data: ") for one in self.raw.split(b"\n\n") if one]
        return ["[DONE]" if one == b"[DONE]" else json.loads(one) for one in found]


def test_the_sdk_calls_every_endpoint(site: Site) -> None:
    sdk = site.house.client.sdk
    whole = sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello you"}])
    assert whole.choices[0].message.content == "hello you"
    chunks = sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello you"}], stream=True, service_tier="priority"
    )
    seen = list(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices).strip() == "hello you"
    assert {chunk.service_tier for chunk in seen} == {"priority"}
    assert sdk.completions.create(model=MODEL, prompt="a prompt").choices[0].text == "a prompt"
    assert len(sdk.embeddings.create(model=MODEL, input=["a", "b"]).data) == 2
    assert sdk.responses.create(model=MODEL, input="an input").output_text == "an input"
    http = site.house.client.http
    assert http.post("/score", json={"model": MODEL, "text_1": "a", "text_2": ["a", "b"]}).status_code == 200
    assert http.post("/rerank", json={"model": MODEL, "query": "a", "documents": ["a"]}).status_code == 200
    assert httpx.post(
        f"{site.house.url}/tokenize",
        json={"model": MODEL, "prompt": "a b"},
        headers={"authorization": f"Bearer {KEY}"},
        trust_env=False,
    ).json()["count"]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model=MODEL, messages=[])
    assert refused.value.param == "messages"
    with pytest.raises(openai.NotFoundError):
        sdk.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])


def test_a_worker_killed_under_20_streams_costs_those_that_had_begun_a_clean_error_and_nobody_else(site: Site) -> None:
    url = site.house.url
    begun = [Stream(url, f"begun {n} [[tokens 150]]") for n in range(10)]
    waiting = [Stream(url, f"waiting {n} [[sleep 6000]] [[tokens 3]]") for n in range(10)]
    name = ""
    try:
        until(lambda: all(one.raw for one in begun) and len(site.asked("waiting")) == 10, "all are in engines")
        lost = Counter(one.worker for one in begun).most_common(1)[0][0]
        name = next(gpu for gpu in site.house.named("gpu") if str(site.house.holder(gpu)).startswith(lost))
        assert site.engine_pids(name) & set(site.asked("waiting")), "some that had not begun were there too"
        site.house.kill(name)
        ended = time.monotonic() + 6.0 + _SOON_SECONDS
        for one in begun + waiting:
            one.thread.join(max(0.0, ended - time.monotonic()))
            assert not one.thread.is_alive(), f"{one.text} hangs"
            assert one.failed is None, one.failed
            assert one.status == 200, one.raw
        for one in waiting:
            assert one.events[-1] == "[DONE]"
            assert one.worker != lost
        for one in begun:
            if one.worker == lost:
                assert one.events[-1]["error"]["code"] == "worker_lost"
            else:
                assert one.events[-1] == "[DONE]"
    finally:
        if name:
            site.house.start(name)


@pytest.mark.slow
def test_an_engine_that_dies_alone_is_made_good_too(site: Site) -> None:
    waiting = [Stream(site.house.url, f"kept {n} [[sleep 5000]] [[tokens 3]]") for n in range(6)]
    until(lambda: len(site.asked("kept")) == 6, "all are in engines")
    victim = next(gpu for gpu in site.house.named("gpu") if site.engine_pids(gpu) & set(site.asked("kept")))
    assert site.house.kill_engine(victim)
    for one in waiting:
        one.thread.join(5.0 + _SOON_SECONDS)
        assert one.failed is None, one.failed
        assert one.events[-1] == "[DONE]"
    assert len(site.asked("kept")) > 6


@pytest.mark.parametrize("how", ["[[die]]", "[[core-dies-after 2]]", *further("[[die-after 2]]", "[[core-dies]]")])
def test_a_poison_call_kills_two_engines_at_most_whichever_api_is_asked(site: Site, how: str) -> None:
    name = f"poison {how[2:-2]}"
    first, second = site.urls
    for url in (first, second, second, first):
        answer = ask(url, f"{name} {how} [[tokens 9]]", stream="after" in how)
        if answer.status_code == 200:
            assert answer.content.endswith(b"\n\n")
            assert b'"code":"engine_crash"' in answer.content
        else:
            assert answer.status_code in (500, 503), answer.text
            assert answer.json()["error"]["code"] == "engine_crash"
    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    assert len(site.asked(name)) == 2
    assert site.house.ask("select max(deaths) from call_suspects") == 2


def test_copies_of_a_poison_call_by_both_apis_at_once_meet_one_engine_for_each_api_and_one_more_at_most(
    site: Site,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(ask, url, "crowd [[sleep 200]] [[die]]") for url in site.urls * 4]
        codes = {call.result().json()["error"]["code"] for call in calls}
    assert "engine_crash" in codes
    assert codes <= {"engine_crash", "no_worker"}, "copies that find the engine dead already are told to come back"
    # An API can't know which copies another has in an engine at this moment; it knows of deaths.
    assert len(set(site.asked("crowd"))) <= len(site.urls) + 1


def test_calls_go_on_without_redis(site: Site) -> None:
    site.valkey.stop()
    try:
        began = time.monotonic()
        for n in range(20):
            assert ask(site.house.url, f"no redis {n}").status_code == 200
        assert time.monotonic() - began < 10
    finally:
        site.valkey.cont()


@pytest.mark.slow
def test_calls_go_on_while_postgres_is_away_for_ten_seconds(site: Site) -> None:
    url = site.house.url
    assert ask(url, "before").status_code == 200
    site.postgres.end()
    try:
        end, count = time.monotonic() + 10, 0
        while time.monotonic() < end:
            began = time.monotonic()
            assert ask(url, f"away {count}").status_code == 200
            assert time.monotonic() - began < 5
            count += 1
        unknown = ask(url, "who", key="sk-penstock-nobody-knows-this-one")
        assert unknown.status_code == 503, "a key that was not seen lately can't be judged now"
    finally:
        site.postgres.start()
    until(lambda: ask(url, "who", key="sk-penstock-nobody-knows-this-one").status_code == 401, "keys are judged again")
    for n in range(50):
        assert ask(url, f"after {n}").status_code == 200, "a worker that has not pulsed again yet is still asked"


def test_a_revoked_key_ends_within_its_cache_time_at_every_api(site: Site) -> None:
    db = Database(sync_engine(site.postgres.url, connections=1), lambda hints: None)
    id, key = db.run(keys.create, "revoked", "test")
    assert {ask(url, "hello", key=key).status_code for url in site.urls} == {200}
    db.run(keys.revoke, "revoked", id)
    db.close()
    until(lambda: {ask(url, "hello", key=key).status_code for url in site.urls} == {401}, "it is refused", 5)


def test_200_idle_streams_are_held_and_their_engines_hear_when_clients_leave(site: Site) -> None:
    with (
        httpx.Client(
            timeout=60, trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        ) as client,
        ThreadPoolExecutor(50) as pool,
    ):

        def begin(n: int) -> tuple[httpx.Response, Iterator[bytes]]:
            body = {"model": MODEL, "messages": [{"role": "user", "content": f"idle {n} [[stall-after 2]]"}]}
            request = client.build_request(
                "POST",
                f"{site.house.url}{CHAT}",
                json={**body, "stream": True},
                headers={"authorization": f"Bearer {KEY}"},
            )
            answer = client.send(request, stream=True)
            assert answer.status_code == 200
            pieces = answer.iter_raw()
            next(pieces)
            return answer, pieces

        streams = list(pool.map(begin, range(200)))
        assert in_flight(site, 200)
        assert ask(site.house.url, "beside them").status_code == 200
        list(pool.map(lambda one: one[0].close(), streams))
    until(lambda: in_flight(site, 0), "the API let go")
    until(lambda: sum(running(site, gpu) for gpu in site.house.named("gpu")) == 0, "the engines did too")


def in_flight(site: Site, count: int) -> bool:
    return (
        f"penstock_calls_in_flight {count}.0"
        in httpx.get(f"{site.house.url}/metrics", trust_env=False, verify=TLS).text
    )


@pytest.mark.slow
def test_a_client_that_waits_on_a_quiet_stream_is_not_given_up_and_one_that_reads_nothing_is(site: Site) -> None:
    quiet = Stream(site.house.url, "quiet [[sleep 9000]] [[tokens 3]]")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "long [[tokens 4000000]]"}]}
    raw = json.dumps(body).encode()
    host, port = site.house.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as reads_nothing:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(raw)}\r\n\r\n"
        reads_nothing.sendall(head.encode() + raw)
        until(lambda: in_flight(site, 2), "both are there")
        until(lambda: in_flight(site, 1), "the one that reads nothing is given up", 40)
    quiet.thread.join(60)
    assert quiet.failed is None
    assert quiet.events[-1] == "[DONE]"


def running(site: Site, gpu: str) -> float:
    """How many requests an engine runs."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(site.house.engine_socket(gpu)))) as client:
        page = client.get("http://engine/metrics").text
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith("vllm:num_requests_running"))
