"""Ensembles that gather, in batches and jobs through a whole platform on the simulated engine."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.ensembles import add, worker
from e2e.live import Platform, chat, said, until

from penstock_worker.engine.echo.answers import vector_of

pytestmark = pytest.mark.timeout(300)

NO = {"script": "[[says no]]"}
PANEL = {
    "name": "jury",
    "kind": "vote",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}, {"model": "tiny", "weight": 1}],
    "extract": {"regex": "yes|no|maybe"},
}
SAFE = {"name": "safe", "kind": "fallback", "members": [{"model": "tiny"}, {"model": "deux"}, {"model": "tiny"}]}
STEPS = {
    "name": "steps",
    "kind": "cascade",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}],
    "accept": {"regex": "^yes"},
}
BEST = {
    "name": "best",
    "kind": "best_of",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}],
    "judge": {"model": "deux", "params": {"script": "[[says 2]]"}},
}
MIX = {
    "name": "mix",
    "kind": "combine",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}],
    "judge": {"model": "tiny", "prompt": "{count}|{request}|{answers}"},
}
DUEL = {
    "name": "duel",
    "kind": "vote",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}],
    "extract": {"regex": "yes|no"},
    "tie": "judge",
    "judge": {"model": "deux", "params": {"script": "[[says 2]]"}},
}
FUSE = {
    "name": "fuse",
    "kind": "combine",
    "members": [{"model": "tiny"}, {"model": "deux", "weight": 2}],
    "method": "reciprocal_rank",
}
DESK = {
    "name": "desk",
    "kind": "route",
    "members": [{"model": "tiny"}, {"model": "deux", "params": NO}],
    "classifier": {"model": "deux", "labels": ["easy", "hard"], "prompt": "{request}"},
    "rules": [
        {"when": {"language": ["de"]}, "use": "tiny"},
        {"when": {"label": "hard"}, "use": "deux"},
    ],
    "default": "tiny",
}
NEAR = DESK | {
    "name": "near",
    "classifier": {
        "model": "deux",
        "by": "embeddings",
        "labels": ["easy", "hard", "odd"],
        "examples": {"hard": ["hard line 3", "hard line 6"], "easy": ["easy line 4"]},
    },
}


@pytest.fixture(scope="module", autouse=True)
def ensembles(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A second worker beside the platform's own, and ensembles of their two models."""
    with worker(platform, "deux=x", tmp_path_factory.mktemp("deux") / "worker.log", "--engine", "echo"):
        for one in (PANEL, SAFE, STEPS, BEST, MIX, DUEL, DESK, NEAR, FUSE, FUSE | {"name": "mean", "method": "mean"}):
            add(platform, one)
        yield


def body_of(answer: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = answer["response"]["body"]
    return body


def test_a_vote_has_one_line_for_each_of_the_callers_and_the_usage_of_all_members(platform: Platform) -> None:
    words = ("yes", "no", "maybe")
    batch = platform.ended(platform.submit([chat(f"{n}", f"{words[n % 3]} {n}", "jury") for n in range(400)]).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed, batch.request_counts.total) == ("completed", 400, 400)
    answers = platform.file(batch.output_file_id)
    assert [answer["custom_id"] for answer in answers] == [f"{n}" for n in range(400)]
    tokens = 0
    for n, answer in enumerate(answers):
        body, word = body_of(answer), words[n % 3]
        trace = body["penstock"]
        assert (said(answer), body["model"]) == (f"{word} {n}", "jury") if word != "no" else ("no 1", "jury")
        assert (trace["kind"], trace["version"], trace["winner"]) == ("vote", "v1", "tiny")
        assert trace["agreement"] == (1.0 if word == "no" else round(2 / 3, 4))
        assert [one["model"] for one in trace["members"]] == ["tiny", "deux", "tiny#2"]
        assert [one["vote"] for one in trace["members"]] == [word, "no", word]
        assert body["usage"]["total_tokens"] == sum(one["tokens"] for one in trace["members"])
        tokens += body["usage"]["total_tokens"]
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["usage"]["total_tokens"] == tokens, "the batch costs what its members did"
    assert told["versions"] == {"jury": ["v1"], "tiny": ["v1"], "deux": ["v1"]}
    shown = platform.http.get("/ensembles/jury").json()
    assert shown["agreement"] == pytest.approx((133 + 267 * 2 / 3) / 400, abs=1e-3)


def test_a_fallback_asks_the_next_member_only_for_lines_that_the_one_before_failed(platform: Platform) -> None:
    def text(n: int) -> str:
        return f"line {n}" + " [[status 422]]" * (n % 10 == 0) + " [[status 500 times 9]]" * (n % 10 == 1)

    batch = platform.ended(platform.submit([chat(f"{n}", text(n), "safe") for n in range(100)]).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 80, 20)
    for answer in platform.file(batch.output_file_id):
        trace = body_of(answer)["penstock"]
        assert (trace["winner"], [one["model"] for one in trace["members"]]) == ("tiny", ["tiny"])
    for answer in platform.file(batch.error_file_id):
        assert answer["response"] is None
        assert answer["error"]["code"] == "ensemble_quorum"
        said_by = "tiny: 4" if int(answer["custom_id"]) % 10 == 0 else "tiny: 5"
        assert said_by in answer["error"]["message"], answer
        assert "tiny#2: " in answer["error"]["message"]
    rows = dict(platform.rows(f"select place, sum(lines)::int from slices where batch = '{batch.id}'"
                              " and place is not null and completed + failed > 0 group by place"))  # fmt: skip
    assert rows == {0: 100, 1: 20, 2: 20}


def test_a_cascade_escalates_exactly_the_lines_whose_answer_is_not_good_enough(platform: Platform) -> None:
    batch = platform.ended(
        platform.submit([chat(f"{n}", f"{'yes' if n % 4 else 'well'} {n}", "steps") for n in range(80)]).id
    )
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed) == ("completed", 80)
    for n, answer in enumerate(platform.file(batch.output_file_id)):
        trace = body_of(answer)["penstock"]
        if n % 4:
            assert (said(answer), trace["winner"], len(trace["members"])) == (f"yes {n}", "tiny", 1)
        else:
            assert (said(answer), trace["winner"]) == ("no", "deux")
            assert [(one["model"], one.get("accepted", True)) for one in trace["members"]] == [
                ("tiny", False),
                ("deux", False),
            ]
    counted = "select value::int from counts where name = %s"
    until(lambda: platform.ask(counted, "ensemble_lines_escalated/steps") == 20, "it is counted for metrics")
    shown = platform.http.get("/ensembles/steps").json()["members"]
    assert [(one["label"], one["lines"], one["escalation_rate"]) for one in shown] == [
        ("tiny", 80, None), ("deux", 20, 0.25),
    ]  # fmt: skip


def test_a_judge_names_the_best_answer_of_each_line_that_several_members_answered(platform: Platform) -> None:
    def text(n: int) -> str:
        return f"line {n}" + " [[status 422]]" * (n % 10 == 0)

    batch = platform.ended(platform.submit([chat(f"{n}", text(n), "best") for n in range(60)]).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("completed", 54, 6)
    tokens = 0
    for answer in platform.file(batch.output_file_id):
        body = body_of(answer)
        trace = body["penstock"]
        assert (said(answer), trace["winner"], trace["judge"]["choice"]) == ("no", "deux", 2)
        assert "degraded" not in trace
        assert body["usage"]["total_tokens"] == sum(one["tokens"] for one in [*trace["members"], trace["judge"]])
        tokens += body["usage"]["total_tokens"]
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["usage"]["total_tokens"] == tokens, "the batch costs what its members and its judge did"
    judge = platform.http.get("/ensembles/best").json()["judge"]
    assert (judge["model"], judge["lines"], judge["completed_lines"]) == ("deux", 54, 54)


def test_a_judge_decides_the_ties_of_a_vote_which_are_counted(platform: Platform) -> None:
    batch = platform.ended(
        platform.submit([chat(f"{n}", f"{'no' if n % 4 else 'yes'} {n}", "duel") for n in range(80)]).id
    )
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed) == ("completed", 80)
    tokens = 0
    for n, answer in enumerate(platform.file(batch.output_file_id)):
        body = body_of(answer)
        trace = body["penstock"]
        if n % 4:
            assert (said(answer), trace["agreement"], "judge" in trace) == (f"no {n}", 1.0, False)
        else:
            assert (said(answer), trace["winner"], trace["agreement"]) == ("no", "deux", 0.5)
            assert (trace["judge"]["choice"], "degraded" in trace) == (2, False)
        asked = [*trace["members"], *([trace["judge"]] if "judge" in trace else [])]
        assert body["usage"]["total_tokens"] == sum(one["tokens"] for one in asked)
        tokens += body["usage"]["total_tokens"]
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["usage"]["total_tokens"] == tokens, "the batch costs what its members and its judge did"
    shown = platform.http.get("/ensembles/duel").json()
    judge = shown["judge"]
    assert (shown["agreement"], judge["lines"], judge["escalation_rate"]) == (0.875, 20, 0.25)
    counted = "select value::int from counts where name = %s"
    for name, count in (("", 80), ("_tied", 20), ("_agreement_thousandths", 70_000)):
        until(lambda name=name, count=count: platform.ask(counted, f"ensemble_votes{name}/duel") == count, name)


def test_what_a_judge_writes_of_the_answers_is_each_lines_answer(platform: Platform) -> None:
    batch = platform.ended(platform.submit([chat(f"{n}", f"line {n}", "mix") for n in range(20)]).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed) == ("completed", 20)
    for n, answer in enumerate(platform.file(batch.output_file_id)):
        assert said(answer) == f"2|user: line {n}|Answer 1:\nline {n}\n\nAnswer 2:\nno"
        body = body_of(answer)
        assert (body["model"], body["penstock"]["winner"]) == ("mix", "judge")
        assert [one["model"] for one in body["penstock"]["members"]] == ["tiny", "deux"]


def test_a_classifier_says_of_each_line_that_needs_it_which_member_is_asked(platform: Platform) -> None:
    german = "Wo ist denn nur meine Rechnung vom letzten Monat geblieben"

    def text(n: int) -> str:
        return f"{german} {n}" if n % 10 == 0 else f"{('hard', 'easy', 'odd')[n % 3]} line {n}"

    file = [chat(f"{n}", text(n), "desk") for n in range(60)]
    batch = platform.ended(platform.submit(file, trace=True).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed) == ("completed", 60)
    tokens = 0
    for answer in platform.file(batch.output_file_id):
        n, body = int(answer["custom_id"]), body_of(answer)
        trace = body["penstock"]
        tokens += body["usage"]["total_tokens"]
        if n % 10 == 0:
            assert (said(answer), trace["winner"], "classifier" in trace) == (text(n), "tiny", False)
            continue
        expected = ("no", "deux", "hard") if n % 3 == 0 else (text(n), "tiny", "easy" if n % 3 == 1 else None)
        assert (said(answer), trace["winner"], trace["classifier"].get("label")) == expected
        assert (body["model"], trace.get("degraded", False)) == ("desk", n % 3 == 2)
        assert body["usage"]["total_tokens"] == trace["classifier"]["tokens"] + trace["members"][0]["tokens"]
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["usage"]["total_tokens"] == tokens, "the batch costs what its members and its classifier did"
    members = [one["member"] for one in platform.file(told["trace_file_id"])]
    assert {name: members.count(name) for name in members} == {"classifier": 54, "deux": 18, "tiny": 36}
    shown = platform.http.get("/ensembles/desk").json()
    assert [one["lines"] for one in [*shown["members"], shown["classifier"]]] == [42, 18, 54]


def test_a_classifier_that_embeds_says_the_label_of_the_nearest_text(platform: Platform) -> None:
    texts = {"easy line 4": "easy", "hard line 3": "hard", "hard line 6": "hard", "odd": "odd"}
    others = [f"line {n}" for n in range(20)]
    asked = [*texts, "no [[status 422]]", *others, *others[:5]]
    batch = platform.ended(platform.submit([chat(f"{n}", text, "near") for n, text in enumerate(asked)], trace=True).id)
    assert batch.request_counts
    assert (batch.status, batch.request_counts.completed) == ("completed", len(asked) - 1)
    labels, tokens = {}, 0
    for answer in platform.file(batch.output_file_id):
        body = body_of(answer)
        trace, text = body["penstock"], asked[int(answer["custom_id"])]
        labels[text] = trace["classifier"]["label"]
        said_by = "deux" if labels[text] == "hard" else "tiny"
        assert (trace["winner"], said(answer)) == (said_by, "no" if said_by == "deux" else text)
        assert body["usage"]["total_tokens"] == trace["classifier"]["tokens"] + trace["members"][0]["tokens"]
        tokens += body["usage"]["total_tokens"]
    assert labels == texts | {text: _nearest(text, texts) for text in others}
    assert len(set(labels.values())) == 3
    [failed] = platform.file(batch.error_file_id)
    assert "(tiny: 422 " in failed["error"]["message"], "its classifier refused it, and so did the member of no label"
    told = platform.http.get(f"/batches/{batch.id}").json()
    assert told["usage"]["total_tokens"] == tokens, "the batch costs what its members and its classifier did"
    for line in platform.file(told["trace_file_id"]):
        if line["member"] == "classifier" and line["custom_id"] != "4":
            near = body_of(line)["similarities"]
            assert ("data" in body_of(line), max(near, key=near.__getitem__)) == (
                False, labels[asked[int(line["custom_id"])]],
            )  # fmt: skip
    for text, label in texts.items():
        called = platform.http.post("/chat/completions", json=chat("", text, "near")["body"]).json()
        assert called["penstock"]["classifier"]["label"] == label


def _nearest(text: str, texts: dict[str, str]) -> str:
    """Which label the simulated engine's vectors say, which are of length 1."""
    mine = vector_of(text)
    near = {one: sum(a * b for a, b in zip(mine, vector_of(one), strict=True)) for one in texts}
    return texts[max(near, key=near.__getitem__)]


def test_vectors_and_ranks_of_each_line_are_made_one(platform: Platform) -> None:
    """Both members are of the same engine, so that what is made of them is what each says."""

    def asks(n: int, model: str, **body: Any) -> dict[str, Any]:
        return {"custom_id": f"{n}", "method": "POST", "url": "/v1/embeddings", "body": {"model": model, **body}}

    vectors = [asks(n, ("mean", "tiny")[n % 2], input=f"text {n // 2}", encoding_format="base64") for n in range(20)]
    batch = platform.ended(platform.submit(vectors, endpoint="/v1/embeddings").id)
    answers = [body_of(one) for one in platform.file(batch.output_file_id)]
    assert len(answers) == 20
    for mean, alone in zip(answers[::2], answers[1::2], strict=True):
        assert _floats(mean) == pytest.approx(_floats(alone), abs=1e-6), "echo's are of length 1"
        assert [one["model"] for one in mean["penstock"]["members"]] == ["tiny", "deux"]
    ranked = asks(0, "fuse", query="red fox", documents=["blue sea", "red fox", "red sea"]) | {"url": "/v1/rerank"}
    batch = platform.ended(platform.submit([ranked], endpoint="/v1/rerank").id)
    [fused] = platform.file(batch.output_file_id)
    found = [one["relevance_score"] for one in body_of(fused)["results"]]
    assert found == pytest.approx([1 / 61, 1 / 62, 1 / 63])
    assert body_of(fused)["results"][0]["document"]["text"] == "red fox"
    ranked["body"]["top_n"] = 2
    batch = platform.ended(platform.submit([ranked], endpoint="/v1/rerank").id)
    [cut] = platform.file(batch.output_file_id)
    assert body_of(cut)["results"] == body_of(fused)["results"][:2]
    assert body_of(cut)["usage"] == body_of(fused)["usage"], "members ranked all"


def _floats(answer: dict[str, Any]) -> tuple[float, ...]:
    raw = base64.b64decode(answer["data"][0]["embedding"])
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def test_a_job_gathers_and_failed_lines_are_asked_again_of_all(platform: Platform) -> None:
    requests = [
        {"custom_id": f"{n}", "body": chat("", f"yes {n}" + f" [[status 503 times {3 * (n % 2)}]]", "jury")["body"]}
        for n in range(4)
    ]
    job = platform.http.post("/jobs", json={"requests": requests}).json()
    ended = platform.http.get(f"/jobs/{job['id']}", params={"wait": 60}).json()
    assert ended["status"] == "completed", ended
    print(ended)
