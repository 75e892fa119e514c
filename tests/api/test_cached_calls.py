"""Waiting calls that have one answer get it from the shared cache, where the tenant or the call wants it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
import redis as redis_client
from api.live import CHAT, chat, error, http
from api.scripted_ingress import ANSWER, TOKEN, ScriptedIngress, serves
from pydantic import SecretStr

from penstock.service.admin import keys, tenants
from penstock.service.core.transaction import Database
from penstock.settings import Settings

ON, OFF = {"x-penstock-cache": "on"}, {"x-penstock-cache": "off"}
ASKED = {"model": "tiny", **chat("hello"), "temperature": 0}
MakeDoor = Callable[..., ScriptedIngress]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A quick table, ingresses that need pulse only once, and a cache that may be slow and is no miss for that."""
    more = {"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0, "load_report_seconds": 0.1}
    return settings.model_copy(update=more | {"cache_timeout_seconds": 10.0})


@pytest.fixture
def make_ingress(db: Database, settings: Settings) -> Iterator[MakeDoor]:
    with ExitStack() as stack:

        def made(**more: object) -> ScriptedIngress:
            return stack.enter_context(ScriptedIngress(db, settings, **more))  # type: ignore[arg-type]

        yield made


@pytest.fixture
def ingress(make_ingress: MakeDoor) -> ScriptedIngress:
    return make_ingress(revision="r1")


@pytest.fixture
def api(ingress: ScriptedIngress, url: str) -> Iterator[httpx.Client]:
    with http(url) as client:
        yield client


def ask(client: httpx.Client, headers: dict[str, str] | None = None, **more: object) -> httpx.Response:
    answer = client.post(CHAT, json=ASKED | more, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def came(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-penstock-cache")


def hits(client: httpx.Client, headers: dict[str, str] | None = ON, **more: object) -> None:
    """Ask until the answer comes from the cache: it is stored a moment after it was given."""
    serves(lambda: came(ask(client, headers, **more)) == "hit")


def test_an_answer_that_was_given_is_given_again_without_a_worker(api: httpx.Client, ingress: ScriptedIngress) -> None:
    first = ask(api, ON)
    assert (came(first), first.content) == ("miss", ANSWER)
    hits(api)
    asked = len(ingress.asked)
    again = api.post(CHAT, headers=ON, json=dict(reversed(ASKED.items())) | {"metadata": {"n": "2"}, "user": "me"})
    assert (came(again), again.content, again.headers["content-type"]) == ("hit", ANSWER, "application/json")
    assert "x-penstock-worker" not in again.headers
    assert len(ingress.asked) == asked


def test_unless_somebody_wants_it_nothing_is_kept(api: httpx.Client, ingress: ScriptedIngress, redis_url: str) -> None:
    for headers in (None, OFF):
        for _ in range(2):
            assert came(ask(api, headers)) is None
    assert len(ingress.asked) == 4
    with redis_client.Redis.from_url(redis_url) as server:
        assert not list(server.scan_iter(b"{penstock-cache}*"))


def test_a_tenants_choice_holds_unless_its_call_says_otherwise(
    api: httpx.Client, ingress: ScriptedIngress, db: Database
) -> None:
    db.run(tenants.set_cache, "default", True)
    hits(api, None)
    assert came(ask(api, OFF)) is None
    assert came(ask(api, None, cache={"mode": "off"})) is None
    assert came(ask(api, ON, cache={"mode": "off"})) == "hit", "the header comes first"
    db.run(tenants.set_cache, "default", False)
    serves(lambda: came(ask(api)) is None)


def test_the_body_can_say_it_too_and_the_engine_never_reads_that(api: httpx.Client, ingress: ScriptedIngress) -> None:
    hits(api, None, cache={"mode": "on", "ttl_seconds": 30})
    assert all("cache" not in json.loads(body) for _, _, body in ingress.asked)


def test_an_answer_lives_as_long_as_its_request_says(api: httpx.Client, redis_url: str) -> None:
    hits(api, None, cache={"ttl_seconds": 33})
    with redis_client.Redis.from_url(redis_url) as server:
        (key,) = (key for key in server.scan_iter(b"{penstock-cache}*") if len(key) == len(b"{penstock-cache}") + 32)
        assert 0 < server.ttl(key) <= 33


def test_refresh_asks_anew_and_keeps_what_came(api: httpx.Client, ingress: ScriptedIngress) -> None:
    hits(api)
    ingress.whole = ANSWER.replace(b"chatcmpl-1", b"chatcmpl-2")
    assert ask(api, ON).content == ANSWER
    refreshed = ask(api, {"x-penstock-cache": "refresh"})
    assert (came(refreshed), refreshed.content) == ("miss", ingress.whole)
    serves(lambda: ask(api, ON).content == ingress.whole)


@pytest.mark.parametrize(
    "more", [{"temperature": 1}, {"temperature": None}, {"temperature": 0, "stream": True}], ids=str
)
def test_what_may_be_answered_otherwise_is_always_asked(
    api: httpx.Client, ingress: ScriptedIngress, more: dict[str, object]
) -> None:
    for asked in (1, 2, 3):
        assert came(ask(api, ON, **more)) is None
        assert len(ingress.asked) == asked


def test_a_refusal_is_not_kept(api: httpx.Client, ingress: ScriptedIngress) -> None:
    ingress.status, ingress.whole = 400, b'{"error":{"message":"no","type":"BadRequestError","param":null,"code":400}}'
    for asked in (1, 2, 3):
        assert api.post(CHAT, json=ASKED, headers=ON).status_code == 400
        assert len(ingress.asked) == asked


def test_another_tenant_gets_nothing_of_it(api: httpx.Client, url: str, db: Database, ingress: ScriptedIngress) -> None:
    hits(api)
    _, key = db.run(keys.create, "stranger", "test")
    with http(url, key) as stranger:
        assert came(ask(stranger, ON)) == "miss"
        hits(stranger)


def test_another_revision_of_the_model_has_answers_of_its_own(api: httpx.Client, ingress: ScriptedIngress) -> None:
    hits(api)
    ingress.announce("r2")
    serves(lambda: came(ask(api, ON)) == "miss")
    ingress.announce("")
    serves(lambda: [came(ask(api, ON)) for _ in range(3)] == ["miss"] * 3)


def test_workers_that_do_not_agree_share_nothing(api: httpx.Client, make_ingress: MakeDoor) -> None:
    hits(api)
    make_ingress(revision="r2")
    serves(lambda: [came(ask(api, ON)) for _ in range(5)] == ["miss"] * 5)


def test_a_hit_says_the_tier_that_this_call_asked_for(api: httpx.Client) -> None:
    hits(api)
    answer = ask(api, ON, service_tier="flex")
    assert (came(answer), answer.json()["service_tier"]) == ("hit", "flex")
    assert answer.headers["x-penstock-service-tier"] == "flex"


@pytest.mark.parametrize(
    ("headers", "cache"),
    [
        ({"x-penstock-cache": "maybe"}, None),
        ({}, "on"),
        ({}, {"mode": "maybe"}),
        ({}, {"mode": "on", "ttl_seconds": 0}),
        ({}, {"ttl_seconds": 10**9}),
        ({}, {"ttl_seconds": "60"}),
        ({}, {"mode": "on", "key": "mine"}),
    ],
    ids=str,
)
def test_words_that_mean_nothing_are_refused(api: httpx.Client, headers: dict[str, str], cache: object) -> None:
    answer = api.post(CHAT, json=ASKED | {"cache": cache}, headers=headers)
    assert "cache" in error(answer, 400)["message"]


def test_hits_and_misses_are_counted(api: httpx.Client) -> None:
    hits(api)
    page = api.get("/metrics").text
    assert 'penstock_cache_lookups_total{asker="call",result="hit"}' in page
    assert 'penstock_cache_lookups_total{asker="call",result="miss"}' in page
    assert "penstock_cache_kept_total" in page
