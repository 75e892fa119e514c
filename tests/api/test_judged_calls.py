"""Waiting calls to ensembles with a judge: a best_of and a combine of two models, and a third that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from api.gathered import ask, content, ingresses, limited, make, quick, refuses, says
from api.live import error, http, serving
from api.scripted_ingress import ScriptedIngress
from e2e.live import until

from penstock.service.admin import keys, prices
from penstock.service.core.transaction import Database
from penstock.service.ensembles import ensembles
from penstock.settings import Settings

JUDGE = {"model": "three", "prompt": "{request}|{answers}", "params": {"seed": 9}}
USAGE = {"prompt_tokens": 3, "total_tokens": 3}


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
    with limited(db, url, "mine") as one:
        yield one


def verdict(answer: httpx.Response) -> tuple[str, str, str, int | None, bool]:
    """The text, whose it is, what came of the judge and which it named, and whether that was none."""
    text, told = content(answer), answer.json()["penstock"]
    judge = told["judge"]
    return text, told["winner"], judge.get("code", judge["outcome"]), judge.get("choice"), told.get("degraded", False)


def test_a_judge_names_the_best_answer_and_without_its_verdict_the_heaviest_is_given(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "best_of", "one", {"model": "two", "weight": 2}, judge=JUDGE)
    says(one, "first")
    says(two, "second")
    says(three, "It is 1.", tokens=2)
    answer = ask(narrow, "hi", max_tokens=3, stop=["x"], service_tier="flex")
    assert verdict(answer) == ("first", "one", "answered", 1, False)
    told = answer.json()
    assert (told["service_tier"], told["usage"]["total_tokens"]) == ("flex", 14 + 14 + 12), "the judge's tokens, too"
    assert told["penstock"]["judge"]["tokens"] == 12
    head = {"ensemble": "mine", "version": "v1", "kind": "best_of", "winner": "one"}
    assert json.loads(answer.headers["x-penstock-ensemble"]) == head
    sent = json.loads(three.asked[0][2])
    text = "user: hi|Answer 1:\nfirst\n\nAnswer 2:\nsecond"
    assert sent["messages"] == [{"role": "user", "content": text}]
    assert (sent["model"], sent["seed"], sent["max_tokens"], sent["temperature"]) == ("three", 9, 1_024, 0)
    assert "stop" not in sent
    for named, won in (("2", ("second", "two", "answered", 2, False)), ("3", ("second", "two", "answered", 3, True)),
                       ("neither", ("second", "two", "answered", None, True))):  # fmt: skip
        says(three, named)
        assert verdict(ask(narrow)) == won
    refuses(three, 422)
    assert verdict(ask(narrow)) == ("second", "two", "422 t", None, True)
    three.usual = "full"
    assert verdict(ask(narrow)) == ("second", "two", "workers_busy", None, True)
    refuses(two, 422)
    asked, answer = len(three.asked), ask(narrow)
    assert (content(answer), answer.json()["penstock"].get("judge"), len(three.asked)) == ("first", None, asked)
    refuses(one, 422)
    assert error(ask(narrow), 400)["message"].endswith("answered (one: 422 t; two: 422 t).")


def test_what_a_judge_writes_is_the_answer_and_without_it_there_may_be_none(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "combine", "one", "two", judge=JUDGE)
    says(one, "first")
    says(two, "second")
    says(three, "both 12", tokens=2)
    answer = ask(narrow, max_tokens=3, stop=["x"], n=1)
    assert verdict(answer) == ("both 12", "judge", "answered", None, False)
    assert answer.headers["x-penstock-worker"] == str(three.worker)[:8]
    assert answer.json()["model"] == "mine"
    sent = json.loads(three.asked[0][2])
    assert (sent["seed"], sent["max_tokens"], sent["stop"], "n" in sent) == (9, 3, ["x"], False)
    says(three, " ")
    assert verdict(ask(narrow)) == ("first", "one", "answered", None, True), "nothing is no answer"
    make(db, "combine", "one", "two", judge=JUDGE | {"model": "nobody"}, on_error="fail")
    until(lambda: "judge: no_worker" in ask(narrow).text, "the second version is known")
    answer = ask(narrow)
    found = error(answer, 503)
    assert (found["code"], found["message"]) == (
        "ensemble_quorum", "A member of the ensemble 'mine' did not answer (judge: no_worker).",
    )  # fmt: skip
    assert int(answer.headers["retry-after"]) > 0, "it may be there soon"


def test_a_judge_decides_ties_alone_and_without_its_verdict_the_heaviest_rule_does(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    make(db, "vote", "one", "two", tie="judge", judge=JUDGE)
    says(one, "no")
    says(two, "no")
    assert (content(ask(narrow)), len(three.asked)) == ("no", 0), "there is no tie"
    says(two, "yes")
    says(three, "It is 2.", tokens=2)
    answer = ask(narrow, "hi", max_tokens=3)
    assert verdict(answer) == ("yes", "two", "answered", 2, False)
    assert (answer.json()["penstock"]["agreement"], answer.json()["usage"]["total_tokens"]) == (0.5, 14 + 14 + 12)
    sent = json.loads(three.asked[0][2])
    assert sent["messages"][0]["content"] == "user: hi|Answer 1:\nno\n\nAnswer 2:\nyes"
    assert sent["max_tokens"] == 1_024
    says(three, "neither")
    assert verdict(ask(narrow)) == ("no", "one", "answered", None, True)
    three.usual = "full"
    assert verdict(ask(narrow)) == ("no", "one", "workers_busy", None, True)
    make(db, "vote", "one", "two", tie="judge", judge=JUDGE, on_error="fail")
    until(lambda: ask(narrow).status_code == 503, "the second version is known: its judge is busy")
    three.usual = "answer"
    assert error(ask(narrow), 502)["message"] == "The judge of the ensemble 'mine' gave no verdict."


def test_once_a_call_has_cost_too_much_nobody_further_is_asked(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    one, two, three = members
    free = {"input": "0", "cached_input": "0", "gpu_second": "0", "currency": "EUR"}
    for name, each in (("one", "100"), ("two", "200")):
        db.run(prices.set_price, name, output=each, **free)
    says(one, "no")
    says(two, "yes")
    says(three, "1")
    for most, stopped in ((0.0012, "max_cost"), (0.00120001, None)):  # 4 tokens at 100 and 4 at 200 a million
        make(db, "vote", "one", "two", tie="judge", judge=JUDGE, max_cost=most)
        until(lambda stopped=stopped: ask(narrow).json()["penstock"].get("stopped") == stopped, "the price is known")
    assert len(three.asked) == 1
    make(db, "cascade", "one", "two", "three", accept={"regex": "sure"}, max_cost=0.0005)
    until(lambda: ask(narrow).json()["penstock"]["kind"] == "cascade", "it is known")
    trace = ask(narrow).json()["penstock"]
    assert (trace["winner"], trace["stopped"], trace["degraded"]) == ("two", "max_cost", True)
    assert [one["model"] for one in trace["members"]] == ["one", "two"]


def test_vectors_and_ranks_are_made_one_without_a_judge(
    narrow: httpx.Client, members: list[ScriptedIngress], db: Database
) -> None:
    def answers(one: ScriptedIngress, **more: object) -> None:
        one.whole, one.status = json.dumps({"object": "list", "model": "x", "usage": USAGE, **more}).encode(), 200

    one, two, _ = members
    make(db, "combine", {"model": "one", "weight": 3}, {"model": "two", "weight": 4}, method="mean")
    answers(one, data=[{"index": 0, "embedding": [1.0, 0.0]}])
    answers(two, data=[{"index": 0, "embedding": [0.0, 1.0]}])
    answer = narrow.post("/v1/embeddings", json={"model": "mine", "input": "a"})
    told = answer.json()
    assert told["data"][0]["embedding"] == pytest.approx([0.6, 0.8])
    assert (told["model"], told["usage"]["total_tokens"]) == ("mine", 6)
    assert [one["outcome"] for one in told["penstock"]["members"]] == ["answered", "answered"]
    head = {"ensemble": "mine", "version": "v1", "kind": "combine"}
    assert json.loads(answer.headers["x-penstock-ensemble"]) == head
    answers(two, data=[{"index": 0, "embedding": [0.0, 1.0, 0.0]}])
    found = error(narrow.post("/v1/embeddings", json={"model": "mine", "input": "a"}), 502)
    assert (found["code"], "2 and 3 dimensions" in found["message"]) == ("ensemble_mismatch", True)
    answers(one, results=[{"index": 1, "relevance_score": 9.0}, {"index": 0, "relevance_score": 3.0}])
    answers(two, results=[{"index": 0, "relevance_score": 0.75}, {"index": 1, "relevance_score": 0.5}])
    asked = {"model": "mine", "query": "q", "documents": ["a", "b"]}
    told = narrow.post("/v1/rerank", json=asked).json()
    scores = [(one["index"], one["relevance_score"]) for one in told["results"]]
    assert scores == [(1, pytest.approx(29 / 7)), (0, pytest.approx(12 / 7))]
    told = narrow.post("/v1/rerank", json=asked | {"top_n": 1}).json()
    assert ([one["index"] for one in told["results"]], told["usage"]["total_tokens"]) == ([1], 6)
    assert all("top_n" not in json.loads(one.asked[-1][2]) for one in members[:2]), "each ranks all"
    assert error(ask(narrow), 400)["code"] == "ensemble_needs_numbers"


def test_a_judge_is_counted_as_the_members_are(
    members: list[ScriptedIngress], db: Database, settings: Settings
) -> None:
    _, key = db.run(keys.create, "narrow", "narrow")
    make(db, "best_of", "one", "two", judge=JUDGE)
    for member in members:
        says(member, "2")
    with serving(settings) as url, http(url, key) as client:
        assert verdict(ask(client))[1] == "two"
        refuses(members[2], 500)
        assert verdict(ask(client))[1] == "one"
    counts = db.run(ensembles.view, "mine", None).counts  # written at the server's end
    assert {label: (found.calls, found.failed_calls) for label, found in counts.items()} == {
        "one": (2, 0), "two": (2, 0), "judge": (2, 1),
    }  # fmt: skip
