"""`/v1/ensembles`, and calls, jobs and estimates that name one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from api.live import CHAT, arrive, chat, error, http, settle_one, upload
from api.scripted_ingress import TOKEN, ScriptedIngress
from e2e.live import until
from pydantic import SecretStr

from penstock.api.routes.registry.ensembles import CreateEnsemble
from penstock.formats import input as lines
from penstock.service.admin import keys, models, prices
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock.store.models import ensembles

ENSEMBLES = "/v1/ensembles"
SUPPORT: dict[str, Any] = {
    "name": "support",
    "kind": "route",
    "members": [{"model": "tiny"}, {"model": "coder", "params": {"temperature": 0, "max_tokens": 5}}],
    "rules": [{"when": {"regex": "code"}, "use": "coder"}],
    "default": "tiny",
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A quick table, and ingresses that need report only once."""
    changed = {"ingress_token": SecretStr(TOKEN), "ingress_gone_seconds": 600.0, "load_report_seconds": 0.2}
    return settings.model_copy(update=changed)


@pytest.fixture
def members(db: Database) -> None:
    for name in ("tiny", "coder"):
        db.run(models.add, name)


@pytest.fixture
def narrow(url: str, db: Database) -> Iterator[httpx.Client]:
    """A client whose key is for the ensemble only."""
    _, key = db.run(keys.create, "default", "narrow", models=frozenset({"support"}))
    with http(url, key) as one:
        yield one


def added(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post(ENSEMBLES, json=SUPPORT | changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def asks(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "support", "messages": [{"role": "user", "content": text}], **more}


def test_an_operator_adds_looks_at_and_removes_one(
    client: httpx.Client, stranger: httpx.Client, narrow: httpx.Client, members: None
) -> None:
    made = added(client)
    assert (made["id"], made["version"], made["kind"], made["members"][1]["lines"]) == ("support", "v1", "route", None)
    assert made["rules"] == [{"when": {"regex": "code"}, "use": "coder"}, {"when": None, "use": "tiny"}]
    assert added(client)["version"] == "v1"
    versions = [
        added(client, name="odd", rules=None, members=[{"model": "tiny", "params": {"echo": one}}])["version"]
        for one in (1, 1.0, True, True)
    ]
    assert versions == ["v1", "v1", "v2", "v2"], "true is not 1"
    client.delete(f"{ENSEMBLES}/odd")
    assert added(client, default="coder", rules=[{"when": {"tools": False}, "use": "tiny"}])["version"] == "v2"
    assert [one["version"] for one in client.get(ENSEMBLES).json()["data"]] == ["v2"]
    shown = client.get(f"{ENSEMBLES}/support", params={"version": 1}).json()
    assert (shown["version"], shown["members"][0]["lines"], shown["members"][0]["calls"]) == ("v1", 0, 0)
    listed = [one["id"] for one in client.get("/v1/models").json()["data"]]
    assert listed == ["coder", "tiny", "support"]
    assert [one["id"] for one in narrow.get("/v1/models").json()["data"]] == ["support"]
    assert narrow.get("/v1/models/support").json()["live_workers"] == 0
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/support"), ("DELETE", "/support")):
        assert error(stranger.request(method, ENSEMBLES + path), 403)["code"] == "operator_only"
    assert client.delete(f"{ENSEMBLES}/support").json()["deleted"] is True
    for method in ("GET", "DELETE"):
        assert error(client.request(method, f"{ENSEMBLES}/support"), 404)["code"] == "ensemble_not_found"


def test_what_can_be_no_ensemble_is_a_400_that_says_where(client: httpx.Client, members: None) -> None:
    for changes, param in (
        ({"kind": "magic"}, "kind"),
        ({"kind": "best_of"}, "rules"),
        ({"kind": "vote"}, "rules"),
        ({"members": [*SUPPORT["members"], {"model": "none"}], "default": "none",
          "rules": [*SUPPORT["rules"], {"when": {"tools": True}, "use": "tiny"}]}, "members[2].model"),
        ({"rules": [{"when": {"regex": "(?<"}, "use": "coder"}]}, "rules[0].when.regex"),
        ({"max_cost": 1}, "max_cost"),
    ):  # fmt: skip
        assert error(client.post(ENSEMBLES, json=SUPPORT | changes), 400)["param"] == param
    taken = {"name": "coder", "kind": "route", "members": [{"model": "tiny"}], "default": "tiny"}
    for name in ("..", "a/./b"):
        error(client.post(ENSEMBLES, json=SUPPORT | {"name": name}), 400)  # no client could ask for it
    for raw in ("[]", "7", "{}", '"x"'):
        error(client.post(ENSEMBLES, content=raw), 400)
    assert error(client.post(ENSEMBLES, json=taken), 409)["code"] == "name_taken"
    assert client.get(ENSEMBLES).json()["data"] == []


PANEL: dict[str, Any] = {
    "name": "panel",
    "kind": "vote",
    "members": [
        {"model": "tiny", "weight": 2},
        {"model": "tiny", "params": {"seed": 2}},
        {"model": "coder", "weight": 0.5},
    ],
    "extract": {"json_schema": {"enum": ["yes", "no"]}, "normalise": "lower_trim"},
    "min_responses": 2,
}
CASCADE: dict[str, Any] = {
    "name": "steps",
    "kind": "cascade",
    "members": [{"model": "tiny"}, {"model": "coder"}],
    "accept": {"mean_logprob_over": -0.4},
}
FALLBACK: dict[str, Any] = {"name": "safe", "kind": "fallback", "members": CASCADE["members"]}
BEST: dict[str, Any] = {
    "name": "best",
    "kind": "best_of",
    "members": [{"model": "tiny", "weight": 2}, {"model": "tiny"}],
    "judge": {"model": "coder", "reads_chars": 100},
}


NO_COUNTS: dict[str, Any] = {"members": [], "judge": None}


def test_each_kind_is_shown_as_it_was_written_and_with_its_members(client: httpx.Client, members: None) -> None:
    for written in (PANEL, CASCADE, FALLBACK, BEST):
        answer = client.post(ENSEMBLES, json=written)
        assert answer.status_code == 200, answer.text
        made = answer.json()
        assert (made["kind"], made["version"], made["rules"], made["definition"]) == (
            written["kind"],
            "v1",
            [],
            written,
        )
        again = client.post(ENSEMBLES, json=written).json()
        assert again["version"] == "v1", "the same again is no version"
        assert client.get(f"{ENSEMBLES}/{written['name']}").json() | NO_COUNTS == made | NO_COUNTS
    shown = client.get(f"{ENSEMBLES}/panel").json()["members"]
    assert [(one["label"], one["model"], one["weight"]) for one in shown] == [
        ("tiny", "tiny", 2), ("tiny#2", "tiny", 1), ("coder", "coder", 0.5),
    ]  # fmt: skip
    assert [one["weight"] for one in client.get(f"{ENSEMBLES}/safe").json()["members"]] == [None, None]
    best = client.get(f"{ENSEMBLES}/best").json()
    assert [one["weight"] for one in best["members"]] == [2, 1]
    assert {name: best["judge"][name] for name in ("label", "model", "params", "weight", "lines", "calls")} == {
        "label": "judge", "model": "coder", "params": {"temperature": 0, "max_tokens": 1024}, "weight": None,
        "lines": 0, "calls": 0,
    }  # fmt: skip
    assert client.get(f"{ENSEMBLES}/panel").json()["judge"] is None
    assert client.post(ENSEMBLES, json=PANEL | {"tie": "first"}).json()["version"] == "v2"
    listed = [(one["id"], one["kind"]) for one in client.get(ENSEMBLES).json()["data"]]
    assert listed == [("best", "best_of"), ("panel", "vote"), ("safe", "fallback"), ("steps", "cascade")]


def test_what_the_page_has_as_defaults_may_be_sent(client: httpx.Client, members: None) -> None:
    fields = CreateEnsemble.model_validate(FALLBACK).model_dump(by_alias=True)
    assert None in fields.values()
    answer = client.post(ENSEMBLES, json=fields)
    assert answer.status_code == 200, answer.text
    assert client.post(ENSEMBLES, json=FALLBACK).json()["version"] == "v1"


def test_what_its_own_kind_can_not_be_is_a_400_that_says_where(client: httpx.Client, members: None) -> None:
    for written, param in (
        (PANEL | {"extract": {"regex": "(?<"}}, "extract.regex"),
        (PANEL | {"extract": {"json_schema": {}}}, "extract.json_schema"),
        (PANEL | {"members": [{"model": "tiny"}, {"model": "none", "weight": 2}]}, "members[1].model"),
        (PANEL | {"members": [{"model": "tiny"}, {"model": "tiny", "weight": 0}]}, "members[1].weight"),
        (CASCADE | {"accept": {"regex": "(?<"}}, "accept.regex"),
        (CASCADE | {"accept": {"json_schema": {"type": 7}}}, "accept.json_schema"),
        (CASCADE | {"tie": "first"}, "tie"),
        (FALLBACK | {"timeout_seconds": 0}, "timeout_seconds"),
        (BEST | {"judge": {"model": "none"}}, "judge.model"),
        (BEST | {"judge": {"model": "coder", "prompt": "Which?"}}, "judge.prompt"),
    ):
        assert error(client.post(ENSEMBLES, json=written), 400)["param"] == param
    client.post(ENSEMBLES, json=FALLBACK)
    nested = PANEL | {"members": [{"model": "tiny"}, {"model": "safe"}]}
    assert error(client.post(ENSEMBLES, json=nested), 400)["param"] == "members[1].model"
    assert error(client.post(ENSEMBLES, json=BEST | {"judge": {"model": "safe"}}), 400)["param"] == "judge.model"


def went(db: Database, client: httpx.Client, name: str, calls: dict[str, int]) -> dict[str, Any]:
    """The ensemble, after so many calls went to each member."""
    with db.engine.begin() as conn:
        one = ensembles.latest(conn, [name])[name]
        ensembles.add_calls(conn, {(one.id, label): (count, 0) for label, count in calls.items()})
    shown: dict[str, Any] = client.get(f"{ENSEMBLES}/{name}").json()
    return shown


def test_how_often_one_was_not_enough_is_measured(client: httpx.Client, members: None, db: Database) -> None:
    for written in (PANEL, CASCADE):
        client.post(ENSEMBLES, json=written)
    shown = client.get(f"{ENSEMBLES}/steps").json()
    assert [one["escalation_rate"] for one in shown["members"]] == [None, None], "nothing was asked yet"
    shown = went(db, client, "steps", {"tiny": 80, "coder": 20})
    assert [one["escalation_rate"] for one in shown["members"]] == [None, 0.25]
    shown = went(db, client, "panel", {"tiny": 80, "tiny#2": 80, "coder": 20})
    assert [one["escalation_rate"] for one in shown["members"]] == [None] * 3, "a vote asks all"


def test_a_call_goes_to_its_member_and_its_answer_says_so(
    client: httpx.Client, narrow: httpx.Client, db: Database, settings: Settings
) -> None:
    with ScriptedIngress(db, settings) as tiny, ScriptedIngress(db, settings, "coder") as coder:
        for one, name in ((tiny, "tiny"), (coder, "coder")):
            one.whole = json.dumps({"object": "chat.completion", "model": name, "usage": USAGE}).encode()
        added(client)
        until(lambda: narrow.post(CHAT, json=asks("talk")).status_code == 200, "both are known")
        answer = narrow.post(CHAT, json=asks("some code", seed=1))
        told = answer.json()
        trace = told["penstock"]
        assert told["model"] == "support"
        [member] = trace.pop("members")
        assert trace == {"ensemble": "support", "version": "v1", "kind": "route", "winner": "coder"}
        assert json.loads(answer.headers["x-penstock-ensemble"]) == trace
        assert {name: member[name] for name in ("model", "outcome", "tokens")} == {
            "model": "coder", "outcome": "answered", "tokens": 7,
        }  # fmt: skip
        assert 0 <= member["ms"] < 30_000
        sent = json.loads(coder.asked[-1][2])
        assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["seed"]) == ("coder", 0, 5, 1)
        assert narrow.post(CHAT, json=asks("talk")).json()["penstock"]["winner"] == "tiny"
        assert error(narrow.post(CHAT, json=asks("code", model="coder")), 403)["code"] == "model_not_allowed"
        coder.will("stream")
        with narrow.stream("POST", CHAT, json=asks("code", stream=True)) as stream:
            assert json.loads(stream.headers["x-penstock-ensemble"])["winner"] == "coder"
            assert b"[DONE]" in stream.read()
        until(lambda: client.get(f"{ENSEMBLES}/support").json()["members"][1]["calls"] == 2, "calls are counted", 20)


def test_a_pattern_that_explodes_is_the_calls_own_400(client: httpx.Client, members: None) -> None:
    added(client, rules=[{"when": {"regex": "(a|aa)+$"}, "use": "coder"}])
    slow = asks("a" * 200 + "b")
    until(lambda: client.post(CHAT, json=slow).status_code == 400, "calls know of it")
    began = time.monotonic()
    assert error(client.post(CHAT, json=slow), 400)["code"] == "ensemble_rule_too_slow"
    assert error(client.post("/v1/jobs", json={"body": slow}), 400)["code"] == "ensemble_rule_too_slow"
    assert time.monotonic() - began < 10


def test_a_job_of_one_member_starts_at_once_and_one_of_two_is_planned(
    client: httpx.Client, narrow: httpx.Client, members: None, db: Database, settings: Settings
) -> None:
    added(client)
    one = narrow.post("/v1/jobs", json={"requests": [{"body": asks("code")}, {"body": asks("more code")}]}).json()
    assert (one["status"], one["model"], one["versions"]) == ("in_progress", "support", {"support": ["v1"]})
    two = narrow.post("/v1/jobs", json={"requests": [{"body": asks("code")}, {"body": asks("talk")}]}).json()
    assert two["status"] == "validating"
    until(lambda: client.get(f"{ENSEMBLES}/support").json()["members"][1]["lines"] == 2, "they are counted")
    worker = arrive(db, settings, "gpu", "coder")
    settle_one(db, settings, worker, lambda number, custom_id: (200, b'{"usage":null}'))
    counted = client.get(f"{ENSEMBLES}/support").json()["members"][1]
    assert (counted["lines"], counted["completed_lines"], counted["failed_lines"]) == (2, 2, 0)


def test_an_estimate_is_by_the_members_that_lines_go_to(
    client: httpx.Client, narrow: httpx.Client, members: None, db: Database
) -> None:
    added(client)
    for name, output in (("tiny", "1"), ("coder", "100")):
        db.run(prices.set_price, name, input="0", cached_input="0", output=output, gpu_second="0", currency="EUR")
    texts = ["code"] * 10 + ["talk"] * 30
    content = b"".join(lines.write(f"q{n}", CHAT, asks(text, **_limit(text))) + b"\n" for n, text in enumerate(texts))
    seen = narrow.post("/v1/batches/estimate", json={"input_file_id": upload(narrow, content)["id"], "endpoint": CHAT})
    told = seen.json()
    assert {one["model"]: one["lines"]["expected"] for one in told["models"]} == {"tiny": 30, "coder": 10}
    assert {one["model"]: one["output_tokens"]["high"] for one in told["models"]} == {"tiny": 240, "coder": 50}
    assert told["cost"]["tokens"]["high"] == "0.00524", "30 × 8 tokens at 1, and 10 × 5 at 100 a million"
    other = chat() | {"model": "coder"}
    assert error(narrow.post("/v1/batches/estimate", json={"body": other}), 403)["code"] == "model_not_allowed"


def _limit(text: str) -> dict[str, int]:
    """What a line says itself; the coder's limit is its params'."""
    return {} if text == "code" else {"max_tokens": 8}


def estimated(client: httpx.Client, name: str, count: int = 20) -> dict[str, Any]:
    body = asks("talk", max_tokens=8) | {"model": name}
    content = b"".join(lines.write(f"q{n}", CHAT, body) + b"\n" for n in range(count))
    answer = client.post(
        "/v1/batches/estimate", json={"input_file_id": upload(client, content)["id"], "endpoint": CHAT}
    )
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def member_lines(told: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    return {one["model"]: tuple(one["lines"][name] for name in ("low", "expected", "high")) for one in told["models"]}


def test_an_estimate_of_a_vote_is_the_sum_of_all_members(client: httpx.Client, members: None, db: Database) -> None:
    client.post(ENSEMBLES, json=PANEL | {"members": [*PANEL["members"][:2], {"model": "coder", "params": {"n": 2}}]})
    for name, output in (("tiny", "1"), ("coder", "100")):
        db.run(prices.set_price, name, input="0", cached_input="0", output=output, gpu_second="0", currency="EUR")
    told = estimated(client, "panel")
    assert told["lines"]["count"] == 20, "a caller's line is one"
    assert member_lines(told) == {"tiny": (40, 40, 40), "coder": (20, 20, 20)}
    assert {one["model"]: one["output_tokens"]["high"] for one in told["models"]} == {"tiny": 320, "coder": 320}
    assert told["output_tokens"]["high"] == 640
    assert told["cost"]["tokens"]["high"] == "0.03232", "40 × 8 tokens at 1, and 20 × 2 × 8 at 100 a million"


def test_an_estimate_of_what_a_judge_reads_has_the_request_and_the_answers_and_a_short_verdict(
    client: httpx.Client, members: None
) -> None:
    for kind in ("best_of", "combine"):
        client.post(ENSEMBLES, json=BEST | {"name": kind, "kind": kind})
    found = {kind: {one["model"]: one for one in estimated(client, kind)["models"]} for kind in ("best_of", "combine")}
    for told in found.values():
        assert [told[name]["lines"]["expected"] for name in ("tiny", "coder")] == [40, 20]
        read = told["coder"]["input_tokens"]
        assert read["expected"] > 20 * (16 + 2 * told["tiny"]["input_tokens"]["expected"] / 40), "two answers of 8"
        assert read["high"] - read["expected"] < 20 * 100, "it reads no more of them than it was told"
    assert [found[kind]["coder"]["output_tokens"]["expected"] for kind in found] == [20 * 8, 20 * 8]
    assert [found[kind]["coder"]["output_tokens"]["high"] for kind in found] == [20 * 1024, 20 * 8]


def test_an_estimate_of_a_judge_that_decides_ties_is_by_how_many_there_were(
    client: httpx.Client, members: None, db: Database
) -> None:
    two = [{"model": "tiny"}, {"model": "tiny", "params": {"seed": 2}}]
    client.post(ENSEMBLES, json={"name": "duel", "kind": "vote", "members": two, "tie": "judge",
                                 "judge": {"model": "coder"}})  # fmt: skip
    assert member_lines(estimated(client, "duel")) == {"tiny": (40, 40, 40), "coder": (0, 10, 20)}
    went(db, client, "duel", {"tiny": 400, "tiny#2": 400, "judge": 100})
    low, expected, high = member_lines(estimated(client, "duel"))["coder"]
    assert (expected, 4 <= low < 5, 5 < high <= 6) == (5, True, True)


def test_an_estimate_of_turns_is_by_what_went_to_each_member_before(
    client: httpx.Client, members: None, db: Database
) -> None:
    for written in (CASCADE, FALLBACK):
        client.post(ENSEMBLES, json=written)
    assert member_lines(estimated(client, "safe")) == {"tiny": (20, 20, 20)}, "nobody fell back so far"
    unknown = estimated(client, "steps")
    assert member_lines(unknown) == {"tiny": (20, 20, 20), "coder": (0, 10, 20)}
    assert unknown["output_tokens"]["expected"] == 20 * 8 + 10 * 8
    for name in ("steps", "safe"):
        went(db, client, name, {"tiny": 400, "coder": 100})
        low, expected, high = member_lines(estimated(client, name))["coder"]
        assert (expected, 4 <= low < 5, 5 < high <= 6) == (5, True, True)


def test_an_estimate_of_a_route_by_labels_has_the_classifier_and_a_part_of_each_member(
    client: httpx.Client, members: None, db: Database
) -> None:
    ways = [{"when": {"tools": True}, "use": "tiny"}, {"when": {"label": "b"}, "use": "coder"}]
    classifier = {"model": "coder", "labels": ["a", "b"]}
    both = {"kind": "route", "members": [{"model": "tiny"}, {"model": "coder"}], "default": "tiny"}
    made = client.post(ENSEMBLES, json=both | {"name": "desk", "rules": ways, "classifier": classifier})
    assert (made.status_code, made.json()["classifier"]["label"]) == (200, "classifier"), made.text
    unknown = estimated(client, "desk")
    assert member_lines(unknown) == {"tiny": (0, 10, 20), "coder": (20, 30, 40)}
    told = {one["model"]: one["output_tokens"] for one in unknown["models"]}
    assert told["coder"]["expected"] == 20 * 8 + 10 * 8, "a label, and half of the answers"
    assert told["coder"]["high"] == 20 * 1024 + 20 * 8
    went(db, client, "desk", {"tiny": 300, "coder": 100})
    low, expected, high = member_lines(estimated(client, "desk"))["coder"]
    assert (expected, 20 + 4 <= low < 25, 25 < high <= 26) == (25, True, True)
    near = classifier | {"by": "embeddings", "examples": {"a": ["some text"] * 30}}
    client.post(ENSEMBLES, json=both | {"name": "near", "rules": ways, "classifier": near})
    told = {one["model"]: one for one in estimated(client, "near")["models"]}
    assert told["coder"]["output_tokens"]["high"] == 20 * 8, "vectors have no output tokens"
    assert told["coder"]["lines"]["expected"] == 30
    assert told["coder"]["input_tokens"]["expected"] > 20 * 30 * 3, "each request has the texts of all labels"
    wrong = both | {"name": "desk", "rules": ways, "classifier": {"model": "desk", "labels": ["b"]}}
    assert error(client.post(ENSEMBLES, json=wrong), 400)["param"] == "classifier.model"
    wrong["classifier"] = {"model": "nobody", "labels": ["b"]}
    assert error(client.post(ENSEMBLES, json=wrong), 400)["param"] == "classifier.model"
