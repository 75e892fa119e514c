"""Waiting calls through the API to scripted ingresses: what passes, what is offered again, what clients are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from api.live import CHAT, chat, error, http, serving
from api.scripted_ingress import ANSWER, EVENTS, TOKEN, ScriptedIngress, said
from e2e.live import until
from pydantic import SecretStr

from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.settings import Settings

MakeDoor = Callable[..., ScriptedIngress]
ASKED = {"model": "tiny", **chat()}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A quick table, ingresses that need pulse only once, and a small limit of open calls."""
    return settings.model_copy(
        update={
            "ingress_token": SecretStr(TOKEN),
            "ingress_gone_seconds": 600.0,
            "load_report_seconds": 0.2,
            "tenant_calls": 12,
            "key_cache_seconds": 0.5,
        }
    )


@pytest.fixture
def make_ingress(db: Database, settings: Settings) -> Iterator[MakeDoor]:
    with ExitStack() as stack:

        def made(**more: object) -> ScriptedIngress:
            return stack.enter_context(ScriptedIngress(db, settings, **more))  # type: ignore[arg-type]

        yield made


@pytest.fixture
def ingress(make_ingress: MakeDoor) -> ScriptedIngress:
    return make_ingress()


@pytest.fixture
def other(make_ingress: MakeDoor) -> ScriptedIngress:
    return make_ingress()


@pytest.fixture
def api(ingress: ScriptedIngress, other: ScriptedIngress, url: str) -> Iterator[httpx.Client]:
    """A client of an API that knows two ingresses of one model."""
    with http(url) as client:
        yield client


def ask(client: httpx.Client, text: str = "hello", **more: object) -> httpx.Response:
    return client.post(CHAT, json=ASKED | chat(text) | more)


def deaths(db: Database) -> list[int]:
    with db.engine.begin() as conn:
        return [row.deaths for row in conn.exec_driver_sql("select deaths from call_suspects order by deaths")]


def both(ingress: ScriptedIngress, other: ScriptedIngress, *acts: str) -> None:
    """Let whoever is asked first do this, once; the other answers."""
    first = threading.Lock()
    for one in (ingress, other):
        usual = one._act

        async def act(request, act, *more, usual=usual):  # type: ignore[no-untyped-def]
            if first.acquire(blocking=False):
                return await usual(request, *acts)
            return await usual(request, act, *more)

        one._act = act  # type: ignore[method-assign]


def test_an_answer_passes_byte_for_byte_and_says_who_gave_it(api: httpx.Client, ingress: ScriptedIngress) -> None:
    for endpoint in (
        CHAT,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/score",
        "/v1/rerank",
        "/tokenize",
    ):
        answer = api.post(endpoint, json=ASKED)
        assert (answer.status_code, answer.content) == (200, ANSWER), endpoint
        assert len(answer.headers["x-penstock-worker"]) == 8
        assert answer.headers["x-penstock-queue-ms"] == "7"
        assert answer.headers["x-penstock-service-tier"] == "default"
        assert answer.headers["x-request-id"].startswith("req_")


def test_a_worker_gets_the_clean_body_and_who_asks(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    assert ask(api, priority=-5, service_tier="flex", temperature=0.5).status_code == 200
    ((path, headers, body),) = ingress.asked + other.asked
    assert path == CHAT
    assert (headers["x-penstock-tenant"], headers["x-penstock-tier"]) == ("default", "flex")
    assert "x-penstock-last-resort" not in headers
    sent = json.loads(body)
    assert sent["temperature"] == 0.5
    assert not {"priority", "service_tier"} & set(sent)


@pytest.mark.parametrize(("asked", "used"), [("auto", "default"), ("priority", "priority"), ("flex", "flex")])
def test_the_tier_that_was_used_is_said_where_the_caller_chose_one(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, asked: str, used: str
) -> None:
    answer = ask(api, service_tier=asked)
    assert answer.headers["x-penstock-service-tier"] == used
    assert answer.json() == json.loads(ANSWER) | {"service_tier": used}
    ingress.usual = other.usual = "stream"
    chunks = said(ask(api, service_tier=asked, stream=True).content)
    assert [chunk["service_tier"] for chunk in chunks[:-1]] == [used] * 5


def test_a_stream_passes_byte_for_byte_as_it_comes(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.usual = other.usual = "pause-after 2"
    with api.stream("POST", CHAT, json=ASKED | {"stream": True}) as answer:
        pieces = answer.iter_raw()
        got = b""
        while got != b"".join(EVENTS[:2]):
            got += next(pieces)
        ingress.go_on()
        other.go_on()
        assert got + b"".join(pieces) == b"".join(EVENTS)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    "reason", ["full", "closed", "draining", "not-ready", "unanswered", "break unanswered", "break"]
)
def test_whatever_was_not_answered_by_one_worker_is_answered_by_another(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database, reason: str
) -> None:
    both(ingress, other, *reason.split())
    assert ask(api).content == ANSWER
    assert len(ingress.asked) + len(other.asked) == 2
    assert deaths(db) == []


def test_the_only_worker_is_asked_again_when_a_connection_of_its_engine_broke(
    url: str, ingress: ScriptedIngress
) -> None:
    with http(url) as client:
        until(lambda: ask(client, "warm").status_code == 200, "the table has it")
        ingress.will("unanswered")
        assert ask(client).content == ANSWER


def test_a_worker_that_is_gone_is_passed_over(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.close()
    for n in range(10):
        assert ask(api, f"call {n}").content == ANSWER
    assert len(other.asked) == 10


def test_a_call_that_found_no_slot_in_time_is_not_offered_again(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.usual = other.usual = "waited"
    answer = ask(api)
    assert error(answer, 503)["code"] == "workers_busy"
    assert int(answer.headers["retry-after"]) > 0
    assert len(ingress.asked) + len(other.asked) == 1


def test_when_all_engines_have_enough_the_client_is_told_when_to_come_back(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.usual, other.usual = "limited 20", "limited 7"
    answer = ask(api)
    assert error(answer, 503)["code"] == "engine_rate_limited"
    assert (answer.headers["retry-after"], len(ingress.asked), len(other.asked)) == ("7", 1, 1)
    other.usual = "answer"
    assert ask(api).status_code == 200, "another worker's engine may have room"


def test_when_all_are_full_the_client_is_told_to_come_back(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.usual = other.usual = "full"
    answer = ask(api)
    assert error(answer, 503)["code"] == "workers_busy"
    assert int(answer.headers["retry-after"]) > 0


def test_a_model_without_a_worker_is_a_503_and_an_unknown_one_a_404(client: httpx.Client, model: str) -> None:
    answer = ask(client)
    assert error(answer, 503)["code"] == "no_worker"
    assert 2 <= int(answer.headers["retry-after"]) <= 5
    assert answer.headers["x-penstock-service-tier"] == "default"
    missing = error(ask(client, model="none"), 404)
    assert (missing["code"], missing["param"]) == ("model_not_found", "model")
    assert "There are: tiny (GET /v1/models)" in missing["message"]


def test_what_is_no_call_is_refused_before_any_worker_hears_of_it(
    api: httpx.Client, url: str, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    assert error(ask(api, service_tier="gold"), 400)["param"] == "service_tier"
    assert error(api.post(CHAT, json=chat()), 400)["param"] == "model"
    assert error(api.post(CHAT, content=b"{"), 400)
    assert error(api.post(CHAT, content=b"[]"), 400)
    assert error(api.post(CHAT, content=b" " * 2 * 1024 * 1024), 413)
    assert error(ask(api, background=True), 400)
    with httpx.Client(base_url=url, trust_env=False) as nobody:
        error(ask(nobody), 401)
        error(nobody.post(CHAT, json=ASKED, headers={"authorization": "Bearer sk-penstock-not-this-one"}), 401)
    assert ingress.asked + other.asked == []


def test_an_engines_error_gets_openais_envelope_and_is_not_offered_again(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    for one in (ingress, other):
        one.status = 400
        one.whole = b'{"error":{"message":"too long","type":"BadRequestError","param":"messages","code":400}}'
    told = error(ask(api), 400)
    assert told == {"message": "too long", "type": "BadRequestError", "param": "messages", "code": None}
    for one in (ingress, other):
        one.status, one.whole = 404, b'{"detail":"Not Found"}'
    assert error(api.post("/v1/score", json=ASKED), 404)["code"] == "unsupported_endpoint"
    for one in (ingress, other):
        one.status, one.whole = 500, b"oh"
    assert error(ask(api), 500)["type"] == "server_error"
    assert len(ingress.asked) + len(other.asked) == 3


def test_a_stream_that_breaks_ends_with_whole_events_and_one_that_says_why(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database
) -> None:
    for outcome, code in (("engine-died", "engine_crash"), ("unanswered", "worker_lost"), ("", "worker_lost")):
        both(ingress, other, "break-after", "3", *([outcome] if outcome else []))
        answer = ask(api, f"a stream, {outcome}", stream=True)
        assert answer.content.startswith(b"".join(EVENTS[:3]) + b'data: {"error"')
        *_, end = said(answer.content)
        assert end["error"]["code"] == code
        assert set(end["error"]) == {"message", "type", "param", "code"}
    assert deaths(db) == [1]


def test_a_long_answer_that_breaks_and_is_no_stream_is_cut(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.usual = other.usual = "broken-whole unanswered"
    with pytest.raises(httpx.RemoteProtocolError):
        ask(api)
    assert len(ingress.asked) + len(other.asked) == 1


def test_an_engine_that_dies_before_the_first_byte_is_made_good_by_another_once(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database
) -> None:
    both(ingress, other, "engine-died")
    assert ask(api).content == ANSWER
    assert deaths(db) == [1]
    ingress.will("engine-died suspects")
    other.will("engine-died suspects")
    assert error(ask(api, "among suspects"), 503)["code"] == "engine_crash"
    assert deaths(db) == [1], "a batch line under suspicion was there: the call is not charged"


def test_a_body_that_met_two_deaths_is_refused_at_once_by_every_api(
    api: httpx.Client,
    ingress: ScriptedIngress,
    other: ScriptedIngress,
    make_ingress: MakeDoor,
    settings: Settings,
    db: Database,
) -> None:
    with serving(settings) as second, http(second) as elsewhere:
        ingress.usual = other.usual = "engine-died"
        third = make_ingress()
        third.usual = "engine-died"
        for client in (api, elsewhere, elsewhere, api):
            answer = ask(client, "poison")
            assert error(answer, 500)["code"] == "engine_crash"
            assert answer.headers["x-should-retry"] == "false"
        assert len(ingress.asked) + len(other.asked) + len(third.asked) == 2
        assert deaths(db) == [2]
        for one in (ingress, other, third):
            one.usual = "answer"
        assert ask(api, "no poison").content == ANSWER


def test_equal_bodies_at_the_same_moment_reach_two_engines_at_most(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, make_ingress: MakeDoor, db: Database
) -> None:
    ingresses = [ingress, other, make_ingress(), make_ingress()]
    until(lambda: all(ask(api, f"warm {n}").status_code == 200 for n in range(4)), "the table has all ingresses")
    for one in ingresses:
        one.asked.clear()
        one.usual = "wait engine-died"
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(ask, api, "poison") for _ in range(10)]
        until(lambda: sum(len(one.asked) for one in ingresses) == 10, "all are in an engine")
        for one in ingresses:
            one.go_on()
        answers = [call.result() for call in calls]
    assert {error(answer, 500)["code"] for answer in answers} == {"engine_crash"}
    assert sum(bool(one.asked) for one in ingresses) <= 2
    assert deaths(db) == [2], "ten copies in two engines are two deaths"


def test_a_closed_door_is_asked_as_a_last_resort_only(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    ingress.pulse(open=False)

    def ten_pass_it_by() -> bool:
        ingress.asked.clear()
        return {ask(api, f"call {n}").status_code for n in range(10)} == {200} and not ingress.asked

    until(ten_pass_it_by, "the table says that it is closed")
    other.asked.clear()
    other.usual = ingress.usual = "closed"
    error(ask(api, "nobody is open"), 503)
    assert "x-penstock-last-resort" not in other.asked[0][1]
    rest = ingress.asked + other.asked[1:]
    assert rest
    assert all("x-penstock-last-resort" in headers for _, headers, _ in rest)


@pytest.mark.parametrize("act", ["wait", "pause-after 0", "pause-after 2"])
def test_a_client_that_leaves_is_noticed_by_the_worker(
    url: str, api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, act: str
) -> None:
    ingress.usual = other.usual = act
    with http(url) as leaving, pytest.raises(httpx.ReadTimeout):
        leaving.post(CHAT, json=ASKED | {"stream": True}, timeout=1)
    until(lambda: ingress.left + other.left == 1, "the ingress hears of it")


def test_a_tenant_has_a_limit_of_open_calls(
    url: str, api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database
) -> None:
    ingress.usual = other.usual = "wait"
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(ask, api, f"call {n}") for n in range(12)]
        until(lambda: len(ingress.asked) + len(other.asked) == 12, "all are inside")
        refused = ask(api, "one more")
        assert error(refused, 429)["type"] == "rate_limit_error"
        assert refused.headers["retry-after"]
        with http(url, db.run(keys.create, "neighbour", "test")[1]) as neighbour:
            ingress.will("answer")
            other.will("answer")
            assert ask(neighbour).status_code == 200
        ingress.go_on()
        other.go_on()
        assert {call.result().status_code for call in calls} == {200}
    assert ask(api, "afterwards").status_code == 200


def test_a_call_ends_at_its_longest_time_and_is_not_sent_again(
    settings: Settings, ingress: ScriptedIngress, other: ScriptedIngress
) -> None:
    with serving(settings.model_copy(update={"call_seconds": 1.0})) as url, http(url) as client:
        ingress.usual = other.usual = "wait"
        answer = ask(client)
        assert error(answer, 504)["code"] == "call_timeout"
        assert answer.headers["x-should-retry"] == "false"
        ingress.usual = other.usual = "pause-after 1"
        *_, end = said(ask(client, stream=True).content)
        assert end["error"]["code"] == "call_timeout"
    until(lambda: ingress.left + other.left == 2, "the ingresses hear of both")


def test_a_session_stays_with_one_worker(api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress) -> None:
    for n in range(8):
        for _ in range(3):
            api.post(CHAT, json=ASKED, headers={"x-session-id": f"session {n}"})
    by_session = [len(ingress.asked), len(other.asked)]
    assert sum(by_session) == 24
    assert all(count % 3 == 0 for count in by_session)


def test_a_revoked_key_dies_within_the_cache_time(
    url: str, api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database
) -> None:
    id, key = db.run(keys.create, "tenant", "test")
    with http(url, key) as client:
        assert ask(client).status_code == 200
        db.run(keys.revoke, "tenant", id)
        until(lambda: ask(client).status_code == 401, "the key is refused", 5)


def test_a_door_with_another_token_is_no_door(settings: Settings, ingress: ScriptedIngress) -> None:
    with serving(settings.model_copy(update={"ingress_token": SecretStr("another")})) as url, http(url) as client:
        assert error(ask(client), 503)["code"] == "no_worker"
    assert ingress.asked == []


def test_a_door_that_accepts_two_tokens_is_open_to_apis_of_before_and_after_a_rotation(
    settings: Settings, ingress: ScriptedIngress
) -> None:
    for shown in (f"{TOKEN}, another", TOKEN):  # the first is shown
        with serving(settings.model_copy(update={"ingress_token": SecretStr(shown)})) as url, http(url) as client:
            assert ask(client).status_code == 200


def test_an_engine_that_says_goodbye_in_its_stream_is_a_death(
    api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress, db: Database
) -> None:
    ingress.usual = other.usual = "stream"
    both(ingress, other, "goodbye-after", "0", "engine-died")
    assert ask(api, stream=True).content == b"".join(EVENTS), "nothing was passed on: another worker answers"
    both(ingress, other, "goodbye-after", "2", "engine-died")
    answer = ask(api, "longer", stream=True)
    assert answer.content.startswith(b"".join(EVENTS[:2]) + b'data: {"error"')
    assert said(answer.content)[-1]["error"]["code"] == "engine_crash"
    assert deaths(db) == [1, 1]
    both(ingress, other, "goodbye-after", "2", "answered")
    *_, told, end = said(ask(api, "an error that is no death", stream=True).content)
    assert (told["error"]["code"], end) == (None, "[DONE]")
    assert deaths(db) == [1, 1]


def test_operators_see_calls_and_doors(api: httpx.Client, ingress: ScriptedIngress, other: ScriptedIngress) -> None:
    assert ask(api).status_code == 200
    page = api.get("/metrics").text
    assert (
        f'penstock_ingress_budget{{model="tiny",reason="scripted",region="",worker="{str(ingress.worker)[:8]}"}} 8.0'
        in page
    )
    assert 'penstock_call_seconds_count{endpoint="/v1/chat/completions",status="2xx",tier="default"}' in page
    assert "penstock_worker_directory_age_seconds" in page
