"""Streams of ensembles that read texts: members are asked for whole ones, and the last stage is the client's stream."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api.gathered import NAMES, ask, ingresses, limited, make, quick, refuses, says
from api.live import CHAT, chat, error, http, sdk, serving
from api.scripted_ingress import ScriptedIngress, said
from e2e.live import until

from penstock.service.admin import keys
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

JUDGE = {"model": "three"}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return quick(settings)


@pytest.fixture
def members(db: Database, settings: Settings) -> Iterator[list[ScriptedIngress]]:
    """Two members and the judge, each with one worker, and a model that has none."""
    with ingresses(db, settings) as found:
        yield found


@pytest.fixture
def narrow(members: list[ScriptedIngress], url: str, db: Database) -> Iterator[httpx.Client]:
    """A client whose key is for the ensembles only."""
    with limited(db, url, "mine", "ours") as one:
        yield one


def writes(monkeypatch: pytest.MonkeyPatch, *deltas: dict[str, Any], tokens: int = 2) -> None:
    """What every member that streams says."""

    def event(**more: Any) -> bytes:
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "three"}
        return b"data: " + json.dumps({**head, **more}).encode() + b"\n\n"

    def choice(delta: dict[str, Any], end: str | None = None) -> bytes:
        return event(choices=[{"index": 0, "delta": delta, "finish_reason": end}])

    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    role = choice({"role": "assistant", "content": ""})
    events = [role, *map(choice, deltas), choice({}, "stop"), event(choices=[], usage=usage), b"data: [DONE]\n\n"]
    monkeypatch.setattr("api.scripted_ingress.EVENTS", events)


def came(answer: httpx.Response) -> tuple[str, dict[str, Any]]:
    """The text of a stream, and what its head says of the ensemble."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *events, last = said(answer.content)
    assert last == "[DONE]"
    assert {event["model"] for event in events} == {"mine"}
    texts = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    return "".join(texts), json.loads(answer.headers["x-penstock-ensemble"])


def test_what_a_combines_judge_writes_passes_as_it_comes(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = members
    make(db, "combine", "one", "two", judge=JUDGE)
    says(one, "first")
    says(two, "second")
    writes(monkeypatch, {"reasoning": "hm"}, {"content": "bo"}, {"content": "th"})
    three.will("pause-after 4")
    body = {"model": "mine", **chat(), "service_tier": "flex", **WITH_USAGE}
    with narrow.stream("POST", CHAT, json=body) as answer:
        head = {"ensemble": "mine", "version": "v1", "kind": "combine", "winner": "judge"}
        assert json.loads(answer.headers["x-penstock-ensemble"]) == head, "while the judge still writes"
        assert answer.headers["x-penstock-worker"] == str(three.worker)[:8]
        three.go_on()
        *events, last = said(answer.read())
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert [one.get("content", one.get("reasoning")) for one in deltas] == ["", "hm", "bo", "th", None]
    assert (events[-1]["choices"], last, events[0]["service_tier"]) == ([], "[DONE]", "flex")
    assert events[-1]["usage"] == {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}
    assert not any({"stream", "stream_options"} & json.loads(member.asked[0][2]).keys() for member in (one, two))
    sent = json.loads(three.asked[0][2])
    assert (sent["stream"], sent["stream_options"], sent["max_tokens"]) == (True, {"include_usage": True}, 8)
    three.usual = "stream"
    answer = ask(narrow, stream=True)
    assert came(answer)[0] == "both"
    assert b'"usage"' not in answer.content, "its client did not ask for it"
    one.usual = "full"
    asked = len(three.asked)
    assert (came(ask(narrow, stream=True)), len(three.asked)) == (("second", head | {"winner": "two"}), asked)


def test_without_a_judges_text_the_heaviest_answer_is_the_stream_or_there_is_an_error(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = members
    for name, on_error in (("mine", "skip"), ("ours", "fail")):
        make(db, "combine", "one", {"model": "two", "weight": 2}, judge=JUDGE, name=name, on_error=on_error)
    says(one, "first")
    says(two, "second")
    writes(monkeypatch, {"reasoning": "hm"}, {"content": " "})
    degraded = {"ensemble": "mine", "version": "v1", "kind": "combine", "winner": "two", "degraded": True}
    three.usual = "stream"
    answer = ask(narrow, **WITH_USAGE)
    assert came(answer) == ("second", degraded), "white space is no answer"
    assert said(answer.content)[-2]["usage"]["total_tokens"] == 14 + 14 + 12, "what the judge thought is used"
    assert error(ask(narrow, model="ours", stream=True), 502)["code"] == "ensemble_quorum"
    for act in ("full", "goodbye-after 0", "goodbye-after 2", "break-after 1 engine-died", "limited 5"):
        three.usual = act
        assert came(ask(narrow, stream=True)) == ("second", degraded), act
    three.usual = "stream"
    writes(monkeypatch, {"content": "bo"}, {"content": "th"})
    three.will("goodbye-after 2")
    events = said(ask(narrow, stream=True).content)
    assert (events[1]["choices"][0]["delta"], "error" in events[2]) == ({"content": "bo"}, True), "it has begun"
    three.usual, three.whole = "answer", two.whole
    says(three, "both at once")
    assert came(ask(narrow, stream=True))[0] == "both at once", "of an engine that does not stream"


def test_what_is_decided_of_whole_answers_comes_in_pieces_and_an_error_is_one(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    text = "a longer text " * 30
    says(one, "no")
    says(two, text)
    says(three, text)
    make(db, "vote", *NAMES, min_responses=3)
    answer = ask(narrow, **WITH_USAGE)
    head = {"ensemble": "mine", "version": "v1", "kind": "vote", "winner": "two", "agreement": 0.6667}
    assert came(answer) == (text, head)
    assert len(said(answer.content)) > 6
    assert said(answer.content)[-2]["usage"]["total_tokens"] == 42
    assert answer.headers["x-accel-buffering"] == "no"
    refuses(one, 500)
    assert error(ask(narrow, stream=True), 502)["code"] == "ensemble_quorum"
    refuses(one, 422)
    two.will("wait")
    three.will("wait")
    assert error(ask(narrow, stream=True), 400)["code"] == "ensemble_quorum", "nobody but who refuses was heard"
    says(one, "no")
    says(three, "2")
    make(db, "best_of", "one", "two", judge=JUDGE)
    until(lambda: came(ask(narrow, stream=True))[1]["version"] == "v2", "it is known")
    assert came(ask(narrow, stream=True))[0] == text
    assert "stream" not in json.loads(three.asked[-1][2]), "what a best_of's judge says is no answer"


def test_a_cascades_last_answer_is_taken_whatever_it_says_and_passes_as_it_comes(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = members
    sure = {"content": [{"token": "a", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
    unsure = {"content": [sure["content"][0] | {"logprob": -5}]}
    make(db, "cascade", "one", "two", accept={"mean_logprob_over": -0.5})
    says(one, "a", logprobs=sure)
    answer = ask(narrow, stream=True)
    assert came(answer)[0] == "a"
    assert not any(choice["logprobs"] for event in said(answer.content)[:-1] for choice in event["choices"])
    answer = ask(narrow, stream=True, logprobs=True)
    found = [choice["logprobs"] for event in said(answer.content)[:-1] for choice in event["choices"]]
    assert [one for one in found if one] == [sure]
    says(one, "a", logprobs=unsure)
    says(two, "b", logprobs=unsure)
    writes(monkeypatch, {"content": "from "}, {"content": "two"})
    two.usual = "stream"
    answer = ask(narrow, **WITH_USAGE)
    assert came(answer) == ("from two", {"ensemble": "mine", "version": "v1", "kind": "cascade", "winner": "two"})
    assert said(answer.content)[-2]["usage"]["total_tokens"] == 14 + 12
    sent = json.loads(two.asked[0][2])
    assert (sent["stream"], "logprobs" in sent) == (True, False), "nobody reads how sure the last one is"
    two.usual = "full"
    assert came(ask(narrow, stream=True)) == ("a", {"ensemble": "mine", "version": "v1", "kind": "cascade",
                                                    "winner": "one", "degraded": True})  # fmt: skip


def test_a_client_that_leaves_a_stream_ends_what_the_judge_does(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = members
    make(db, "combine", "one", "two", judge=JUDGE)
    says(one, "first")
    says(two, "second")
    writes(monkeypatch, {"content": "bo"}, {"content": "th"})
    three.will("pause-after 2")
    with narrow.stream("POST", CHAT, json={"model": "mine", **chat(), "stream": True}) as answer:
        coming = answer.iter_bytes()  # httpx leaves the answer when nobody holds this any more
        assert b'"bo"' in next(coming)
        assert three.left == 0
    until(lambda: three.left == 1, "its worker heard that nobody listens")


def test_openais_sdk_reads_them_and_each_model_is_counted_for_itself(
    members: list[ScriptedIngress], db: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = members
    _, key = db.run(keys.create, "narrow", "narrow")
    says(one, "first")
    row = {"token": "yes", "logprob": -0.5, "bytes": [1], "top_logprobs": []}
    choices = [{"index": n, "message": {"role": "assistant", "content": f"yes {n}"}, "finish_reason": "stop",
                "logprobs": {"content": [row, row | {"token": f" {n}"}], "refusal": None}} for n in (0, 1)]  # fmt: skip
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    answer = {"id": "x", "created": 1, "object": "chat.completion", "model": "two", "choices": choices, "usage": usage}
    two.whole = json.dumps(answer).encode()
    make(db, "vote", "one", {"model": "two", "weight": 2}, min_responses=2)
    make(db, "combine", "one", "two", judge=JUDGE, name="ours")
    writes(monkeypatch, {"content": "both"})
    three.usual = "stream"
    asked: Any = {"messages": chat()["messages"], "stream_options": {"include_usage": True}}
    with serving(settings) as url, sdk(url, key) as client:
        with client.chat.completions.stream(model="mine", n=2, logprobs=True, **asked) as stream:
            whole = stream.get_final_completion()
        assert [choice.message.content for choice in whole.choices] == ["yes 0", "yes 1"]
        assert [choice.logprobs.content[1].token for choice in whole.choices if choice.logprobs] == [" 0", " 1"]
        assert (whole.model, whole.usage and whole.usage.total_tokens) == ("mine", 28)
        with client.chat.completions.stream(model="ours", **asked) as stream:
            whole = stream.get_final_completion()
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("both", "stop")
        assert (whole.model, whole.usage and whole.usage.total_tokens) == ("ours", 40)
    with serving(settings) as url, http(url, key) as client:  # what the first one counted is written at its end
        since = {"start_time": int(time.time()) - 86_400, "group_by": ["model", "api_key_id"]}
        rows = [row for bucket in client.get("/v1/usage", params=since).json()["data"] for row in bucket["results"]]
    counted = {row["model"]: (row["num_model_requests"], row["output_tokens"]) for row in rows}
    assert counted == {"one": (2, 8), "two": (2, 8), "three": (1, 2)}
    assert len({row["api_key_id"] for row in rows} - {None}) == 1, "each member counts for the key that asked"
    counts = db.run(ensembles.view, "ours", None).counts
    assert {label: (found.calls, found.failed_calls) for label, found in counts.items()} == {
        "one": (1, 0), "two": (1, 0), "judge": (1, 0),
    }  # fmt: skip
