"""Waiting calls to a route whose rules read a label: its classifier is asked first, and then the member."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from api.gathered import ask, content, ingresses, limited, make, quick, refuses, says
from api.live import CHAT, chat, error
from api.scripted_ingress import ScriptedIngress
from e2e.live import until

from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

CLASSIFIER = {"model": "three", "labels": ["billing", "code"], "prompt": "{labels}|{request}"}
RULES = [{"when": {"tools": True}, "use": "one"}, {"when": {"label": "code"}, "use": "two"}]
BY_VECTORS = {
    "model": "three", "by": "embeddings", "labels": ["billing", "code"], "examples": {"code": ["a loop", "a test"]},
}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return quick(settings)


@pytest.fixture
def members(db: Database, settings: Settings) -> Iterator[list[ScriptedIngress]]:
    """Two members and the classifier, each with one worker."""
    with ingresses(db, settings) as found:
        yield found


@pytest.fixture
def narrow(members: list[ScriptedIngress], url: str, db: Database) -> Iterator[httpx.Client]:
    """A client whose key is for the ensemble only."""
    with limited(db, url, "mine") as one:
        yield one


def counted(db: Database) -> dict[str, tuple[int, int]]:
    """By member: how many calls it was asked, and how many of these failed."""
    return {name: (one.calls, one.failed_calls) for name, one in db.run(ensembles.view, "mine").counts.items()}


def test_the_label_decides_and_where_there_is_none_the_rules_do_without(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=CLASSIFIER)
    says(one, "first")
    says(two, "second")
    says(three, "It is code.", tokens=2)
    answer = ask(narrow, "my loop", stop=["x"], service_tier="flex", max_tokens=3)
    assert content(answer) == "second"
    told = answer.json()
    assert (told["model"], told["usage"]["total_tokens"]) == ("mine", 14 + 12), "the classifier's tokens, too"
    trace = told["penstock"]
    assert [one["model"] for one in trace["members"]] == ["two"]
    assert (trace["winner"], trace["classifier"]["label"], trace["classifier"]["tokens"]) == ("two", "code", 12)
    head = {"ensemble": "mine", "version": "v1", "kind": "route", "winner": "two"}
    assert json.loads(answer.headers["x-penstock-ensemble"]) == head
    asked = json.loads(three.asked[0][2])
    assert asked["messages"] == [{"role": "user", "content": "- billing\n- code|my loop"}]
    assert (asked["max_tokens"], asked["temperature"], "stop" in asked) == (1_024, 0, False)
    assert json.loads(two.asked[0][2])["stop"] == ["x"]
    says(three, "who knows")
    answer = ask(narrow)
    assert (content(answer), answer.json()["penstock"]["degraded"]) == ("first", True)
    refuses(three, 422)
    answer = ask(narrow)
    assert (content(answer), answer.json()["penstock"]["classifier"]["code"]) == ("first", "422 t")
    before = len(three.asked)
    answer = ask(narrow, tools=TOOLS)
    assert (content(answer), len(three.asked)) == ("first", before), "a rule before it holds without a label"
    assert "classifier" not in answer.json()["penstock"]
    says(three, "code")
    refuses(two, 422)
    found = error(ask(narrow), 400)
    assert (found["code"], found["message"]) == (
        "ensemble_quorum", "A member of the ensemble 'mine' did not answer (two: 422 t).",
    )  # fmt: skip
    until(lambda: counted(db) == {"one": (3, 0), "two": (2, 1), "classifier": (4, 1)}, lambda: str(counted(db)))


def test_under_on_error_fail_a_call_without_a_label_has_failed(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, _, three = members
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=CLASSIFIER, on_error="fail")
    says(one, "first")
    says(three, "who knows")
    found = error(ask(narrow), 502)
    assert found["message"] == "The classifier of the ensemble 'mine' named none of its labels."
    says(three, "billing")
    assert content(ask(narrow)) == "first"
    three.usual = "full"
    assert error(ask(narrow), 503)["code"] == "ensemble_quorum"
    needs_text = narrow.post("/v1/embeddings", json={"model": "mine", "input": "x"})
    assert error(needs_text, 400)["code"] == "ensemble_needs_text"


def test_the_member_that_the_label_chooses_streams(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    _, two, three = members
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=CLASSIFIER)
    says(three, "code")
    two.usual = "stream"
    with narrow.stream("POST", CHAT, json={"model": "mine", **chat("hi"), "stream": True}) as answer:
        said = answer.read()
    assert answer.status_code == 200, said
    assert (b"data: " in said, b"[DONE]" in said) == (True, True)
    assert json.loads(answer.headers["x-penstock-ensemble"])["winner"] == "two"
    assert "stream" not in json.loads(three.asked[0][2])


def embeds(one: ScriptedIngress, *vectors: list[float]) -> None:
    """What a classifier answers from now on that embeds."""
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    one.whole, one.status = json.dumps({"object": "list", "model": "x", "data": data, "usage": usage}).encode(), 200


def test_a_classifier_that_embeds_is_asked_for_vectors_and_the_nearest_decides(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=BY_VECTORS)
    says(one, "first")
    says(two, "second")
    embeds(three, [1, 0], [0, 1], [1, 1], [2, 0])
    answer = ask(narrow, "my loop", stop=["x"], service_tier="flex", max_tokens=3)
    assert content(answer) == "second"
    told = answer.json()
    assert (told["model"], told["usage"]["total_tokens"]) == ("mine", 14 + 7), "the classifier's tokens, too"
    found = told["penstock"]["classifier"]
    assert (found.pop("ms") >= 0, found) == (
        True, {"model": "classifier", "outcome": "answered", "tokens": 7, "label": "code"},
    )  # fmt: skip
    path, _, raw = three.asked[0]
    asked = json.loads(raw)
    asked.pop("cache_salt", None)
    assert path == "/v1/embeddings"
    assert asked == {"model": "three", "input": ["my loop", "billing", "a loop", "a test"], "encoding_format": "base64"}
    assert (two.asked[0][0], json.loads(two.asked[0][2])["stop"]) == (CHAT, ["x"])
    two.usual = "stream"
    with narrow.stream("POST", CHAT, json={"model": "mine", **chat("hi"), "stream": True}) as streamed:
        assert b"[DONE]" in streamed.read()
    assert "stream" not in json.loads(three.asked[-1][2])
    until(lambda: counted(db) == {"one": (0, 0), "two": (2, 0), "classifier": (2, 0)}, lambda: str(counted(db)))


def test_a_model_that_cannot_embed_is_as_a_classifier_that_refuses(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, _, three = members
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=BY_VECTORS)
    says(one, "first")
    says(three, "I only write: code")
    answer = ask(narrow)
    assert (content(answer), answer.json()["penstock"]["degraded"]) == ("first", True)
    assert "label" not in answer.json()["penstock"]["classifier"]
    three.whole, three.status = b'{"detail": "Not Found"}', 404
    found = ask(narrow).json()["penstock"]
    assert (found["winner"], found["classifier"]["outcome"], found["classifier"]["code"]) == (
        "one", "refused", "unsupported_endpoint",
    )  # fmt: skip
    make(db, "route", "one", "two", rules=RULES, default="one", classifier=BY_VECTORS, on_error="fail")
    until(lambda: ask(narrow).status_code == 400, "the new version counts")
    found = error(ask(narrow), 400)
    assert (found["code"], "(classifier: unsupported_endpoint)" in found["message"]) == ("ensemble_quorum", True)
    needs_text = narrow.post("/v1/embeddings", json={"model": "mine", "input": "x"})
    assert error(needs_text, 400)["code"] == "ensemble_needs_text"
