"""Waiting calls to ensembles that gather: of three models on scripted ingresses."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from api.gathered import NAMES, ask, content, ingresses, limited, make, quick, refuses, says
from api.live import CHAT, chat, error, http, serving
from api.scripted_ingress import EVENTS, ScriptedIngress, said
from e2e.live import until

from penstock.service.admin import keys, limits
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

JUDGE = {"judge": {"model": "three"}}
ROLE = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return quick(settings)


@pytest.fixture
def members(db: Database, settings: Settings) -> Iterator[list[ScriptedIngress]]:
    """Three models, each with one worker, and a model that has none."""
    with ingresses(db, settings, revision="r") as found:
        yield found


@pytest.fixture
def narrow(members: list[ScriptedIngress], url: str, db: Database) -> Iterator[httpx.Client]:
    """A client whose key is for the ensembles only."""
    with limited(db, url, "mine", "ours") as one:
        yield one


def came(answer: httpx.Response) -> list[tuple[str, str, str | None]]:
    """What came of each member, as the trace says it."""
    return [(one["model"], one["outcome"], one.get("code")) for one in answer.json()["penstock"]["members"]]


def test_a_fallback_asks_the_next_member_where_one_is_absent_refuses_or_dies(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "fallback", "nobody", {"model": "one", "params": {"seed": 3}}, "two", "three")
    says(three, "from three", tokens=7)
    refuses(one, 422)
    two.usual, two.outcomes = "break engine-died", {}
    answer = ask(narrow, service_tier="flex")
    assert content(answer) == "from three"
    told = answer.json()
    assert (told["model"], told["service_tier"], told["usage"]["total_tokens"]) == ("mine", "flex", 17)
    assert came(answer) == [
        ("nobody", "unavailable", "no_worker"), ("one", "refused", "422 t"), ("two", "failed", "engine_crash"),
        ("three", "answered", None),
    ]  # fmt: skip
    assert told["penstock"]["members"][3]["tokens"] == 17
    head = {"ensemble": "mine", "version": "v1", "kind": "fallback", "winner": "three"}
    assert json.loads(answer.headers["x-penstock-ensemble"]) == head
    assert answer.headers["x-penstock-worker"] == str(three.worker)[:8]
    sent = json.loads(one.asked[0][2])
    assert (sent["model"], sent["seed"]) == ("one", 3)
    says(one, "from one")
    kept = {"temperature": 0, "cache": {"mode": "on"}}
    until(lambda: came(ask(narrow, **kept))[1] == ("one", "reused", None), "what is in the cache is asked of nobody")
    assert [content(ask(narrow)), len(three.asked)] == ["from one", 1], "who comes first is asked first"
    assert error(ask(narrow, model="one"), 403)["code"] == "model_not_allowed"


def test_what_is_no_json_is_no_answer_and_half_a_character_is_one(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, _ = members
    make(db, "fallback", "one", "two")
    says(one, "from one")
    says(two, "from two")
    whole = one.whole
    deep = b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    for body in (whole[:-5], b"hello", b"[1]", b"", whole[:-1] + b',"x":NaN}', deep):
        one.whole = body
        answer = ask(narrow)
        assert (content(answer), came(answer)[0]) == ("from two", ("one", "failed", "not_json")), body[:40]
    says(one, "half \ud83d")
    answer = ask(narrow)
    assert (content(answer), came(answer)) == ("half ?", [("one", "answered", None)])


def test_a_request_that_two_engines_died_of_is_asked_of_no_further_member(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "fallback", "one", "two", "three")
    one.will("break engine-died")
    two.will("break engine-died")
    answer = ask(narrow)
    assert "two: engine_crash" in error(answer, 502)["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert not three.asked


def test_where_no_member_answers_the_error_says_what_came_of_each_and_whose_fault_it_is(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, _ = members
    make(db, "fallback", "one", "two")
    for first, second, status in ((400, 422, 400), (400, 500, 502), (429, 429, 429), (503, 429, 503)):
        refuses(one, first)
        refuses(two, second)
        answer = ask(narrow)
        found = error(answer, status)
        assert (found["code"], "one: " in found["message"], "two: " in found["message"]) == (
            "ensemble_quorum", True, True,
        )  # fmt: skip
        assert ("retry-after" in answer.headers) == (status in (429, 503))
        head = {"ensemble": "mine", "version": "v1", "kind": "fallback"}
        assert json.loads(answer.headers["x-penstock-ensemble"]) == head
    one.usual = two.usual = "full"
    assert "workers_busy" in error(ask(narrow), 503)["message"]
    make(db, "fallback", "nobody", "nobody")
    until(lambda: "no_worker" in error(ask(narrow), 503)["message"], "the second version is known")


def test_a_vote_is_decided_by_most_and_who_can_not_change_it_is_aborted(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    trims = {"normalise": "lower_trim"}
    make(db, "vote", *NAMES, extract=trims, min_responses=3, name="ours")  # it hears all of them
    make(db, "vote", *NAMES, extract=trims, min_responses=2)
    says(one, "no")
    says(two, "Yes ")
    says(three, "yes")
    answer = ask(narrow, model="ours")
    assert content(answer) == "Yes ", "the first of those that won, as it was written"
    trace = answer.json()["penstock"]
    assert (trace["winner"], trace["agreement"]) == ("two", 0.6667)
    assert [member["vote"] for member in trace["members"]] == ["no", "yes", "yes"]
    assert answer.json()["usage"] == {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    one.will("wait")
    answer = ask(narrow)
    assert content(answer) == "Yes "
    assert came(answer) == [("one", "cancelled", None), ("two", "answered", None), ("three", "answered", None)]
    assert json.loads(answer.headers["x-penstock-ensemble"])["agreement"] == 1.0
    until(lambda: one.left == 1, "its worker heard that nobody listens")
    says(two, "maybe")
    assert ask(narrow).json()["penstock"]["winner"] == "one", "of three that are equally heavy the first"
    refuses(one, 500)
    two.usual = "full"
    found = error(ask(narrow), 502)
    assert (found["code"], "two: workers_busy" in found["message"]) == ("ensemble_quorum", True)


def test_a_cascade_goes_on_until_an_answer_is_good_enough(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "cascade", "one", "two", "three", accept={"regex": "^sure"})
    for member in members:
        says(member, "who knows")
    answer = ask(narrow)
    assert [accepted(answer), answer.json()["penstock"]["winner"]] == [[False, False, False], "three"]
    says(two, "sure thing")
    answer = ask(narrow)
    assert [accepted(answer), content(answer), len(three.asked)] == [[False, True], "sure thing", 1]
    says(two, "who knows")
    refuses(three, 500)
    answer = ask(narrow)
    assert (content(answer), answer.json()["penstock"]["degraded"]) == ("who knows", True)
    make(db, "cascade", "one", "two", accept={"json_schema": {"type": "object", "required": ["a"]}})
    says(one, "{}")
    says(two, "[1]")
    until(lambda: accepted(ask(narrow)) == [False, False], "the second version is known")
    says(one, '{"a": 1}')
    assert accepted(ask(narrow)) == [True]


def test_a_cascade_by_how_sure_its_members_are_asks_for_logprobs_and_keeps_them_if_its_client_does(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, _ = members
    make(db, "cascade", "one", "two", accept={"mean_logprob_over": -0.5})
    said_so = {"content": [{"token": "a", "logprob": -0.2}, {"token": "b", "logprob": -0.4}]}
    says(one, "ab", logprobs=said_so)
    answer = ask(narrow)
    assert [accepted(answer), answer.json()["choices"][0]["logprobs"]] == [[True], None]
    assert json.loads(one.asked[0][2])["logprobs"] is True
    assert ask(narrow, logprobs=True).json()["choices"][0]["logprobs"] == said_so
    said_so["content"][0]["logprob"] = -2
    says(one, "ab", logprobs=said_so)
    says(two, "cd", logprobs=said_so)
    assert content(ask(narrow)) == "cd"


def accepted(answer: httpx.Response) -> list[bool]:
    assert answer.status_code == 200, answer.text
    return [member.get("accepted", True) for member in answer.json()["penstock"]["members"]]


def test_a_fallback_streams_and_breaks_over_until_a_member_has_said_something(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = members
    make(db, "fallback", "one", "two")
    monkeypatch.setattr("api.scripted_ingress.EVENTS", [ROLE, *EVENTS])
    two.usual = "stream"
    refuses(one, 422)
    for act in ("answer", "full", "goodbye-after 0", "goodbye-after 1", "break-after 1 engine-died"):
        one.will(act)
        answer = ask(narrow, stream=True)
        assert json.loads(answer.headers["x-penstock-ensemble"])["winner"] == "two", act
        assert [event.get("n") for event in said(answer.content)[:-1]] == [None, 0, 1, 2, 3, 4], act
        assert {event["model"] for event in said(answer.content)[:-1] if "model" in event} <= {"mine"}
    asked = len(two.asked)
    one.will("goodbye-after 3")
    answer = ask(narrow, stream=True)
    assert json.loads(answer.headers["x-penstock-ensemble"])["winner"] == "one"
    assert "error" in said(answer.content)[3]
    assert len(two.asked) == asked, "what has begun is not begun again elsewhere"
    refuses(two, 422)
    two.usual = "answer"
    one.will("full")
    assert error(ask(narrow, stream=True), 400)["code"] == "ensemble_quorum"


def test_what_kinds_that_read_texts_can_not_answer_is_refused_before_anybody_is_asked(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    for kind, more in (
        ("vote", {}),
        ("cascade", {"accept": {"regex": "a"}}),
        ("best_of", {"judge": {"model": "three"}}),
    ):
        make(db, kind, "one", "two", **more)
        until(lambda kind=kind: kind in error(ask(narrow, tools=[tool]), 400)["message"], "it is known")
        for tools in ({"tools": [tool]}, {"functions": [{"name": "f"}]}, {"tools": [tool], "stream": True}):
            assert error(ask(narrow, **tools), 400)["code"] == "ensemble_without_tools"
        for path in ("/v1/embeddings", "/tokenize"):
            answer = narrow.post(path, json={"model": "mine", "input": "a", "prompt": "a"})
            assert error(answer, 400)["code"] == "ensemble_needs_text"
    assert not any(member.asked for member in members)


def test_each_member_is_counted_for_itself_and_limits_count_the_sum(
    members: list[ScriptedIngress], db: Database, settings: Settings
) -> None:
    one, two, three = members
    _, key = db.run(keys.create, "narrow", "narrow")
    db.run(limits.change, "narrow", {"tokens_per_minute": 600})
    make(db, "vote", "one", "two", "three", min_responses=2)
    refuses(one, 400)
    says(two, "a tie", tokens=200)
    says(three, "another", tokens=300)
    with serving(settings) as url, http(url, key) as client:
        assert content(ask(client)) == "a tie"
        found = client.get("/v1/limits").json()["data"]
        used = next(row["used"] for row in found if row["name"] == "tokens_per_minute")
        assert 300 < used <= 520, "ten a second flow back"
        assert error(ask(client, "word " * 200), 429)["code"] == "rate_limit_exceeded", "three times its estimate"
    with serving(settings) as url, http(url, key) as client:  # what the first one counted is written at its end
        asked = {"start_time": int(time.time()) - 86_400, "group_by": ["model", "api_key_id"]}
        buckets = client.get("/v1/usage", params=asked).json()["data"]
    rows = [row for bucket in buckets for row in bucket["results"]]
    counted = {row["model"]: (row["num_model_requests"], row["output_tokens"], row["api_key_name"]) for row in rows}
    assert counted == {"two": (1, 200, "narrow"), "three": (1, 300, "narrow")}
    view = db.run(ensembles.view, "mine", None)
    assert {label: (found.calls, found.failed_calls) for label, found in view.counts.items()} == {
        "one": (1, 1), "two": (1, 0), "three": (1, 0),
    }  # fmt: skip


def test_a_member_has_its_own_time_and_all_together_have_the_calls(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, settings: Settings
) -> None:
    one, two, three = members
    says(one, "a")
    says(two, "b")
    one.usual = three.usual = "wait"
    make(db, "fallback", "one", "two", timeout_seconds=0.5)
    answer = ask(narrow)
    assert came(answer) == [("one", "failed", "call_timeout"), ("two", "answered", None)]
    until(lambda: one.left == 1, "its worker heard that nobody listens")
    make(db, "fallback", "one", "three")
    _, key = db.run(keys.create, "narrow", "other")
    with serving(settings.model_copy(update={"call_seconds": 1.0})) as url, http(url, key) as hasty:
        assert error(ask(hasty), 504)["code"] == "call_timeout"
        one.usual = "answer"
        make(db, "vote", *NAMES)
        until(lambda: _tied(ask(hasty)), "the next version is known, and decided by those that answered in time")


def _tied(answer: httpx.Response) -> bool:
    """Whether it is of the vote, whose third member has not answered."""
    trace = answer.json().get("penstock", {})
    return trace.get("agreement") == 0.5 and came(answer)[2] == ("three", "failed", "call_timeout")


def test_a_client_that_leaves_ends_what_its_members_do(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    make(db, "vote", *NAMES)
    for member in members:
        member.will("wait")
    body = json.dumps({"model": "mine", **chat()})
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {narrow.headers['authorization']}\r\n"
    with socket.create_connection((narrow.base_url.host, narrow.base_url.port or 80)) as leaving:
        leaving.sendall(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: all(member.asked for member in members), "all are asked")
        assert not any(member.left for member in members)
    until(lambda: [member.left for member in members] == [1, 1, 1], "all heard of it")
