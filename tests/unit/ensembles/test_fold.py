"""Folds: the one answer that is made of members' answers, its usage, its trace, and the error where there is none."""

from __future__ import annotations

import json
from typing import Any

from penstock.domain.ensembles.definition import read
from penstock.formats.answers.folded_answer import summed_usage, without_logprobs
from penstock.service.ensembles.fold import QUORUM, Fold, Folded, MemberAnswer

MEMBERS = [{"model": "small"}, {"model": "small"}, {"model": "big"}]


def fold(kind: str, **more: Any) -> Fold:
    return Fold(read({"name": "panel", "kind": kind, "members": MEMBERS, **more}), 3)


def body(text: str, tokens: int = 1, **choice: Any) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens,
             "prompt_tokens_details": {"cached_tokens": 2}}  # fmt: skip
    return json.dumps({
        "id": f"chat-{text}", "object": "chat.completion", "model": "x", "seed": 1e0,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, **choice}], "usage": usage,
    }).encode()  # fmt: skip


def answered(text: str, tokens: int = 1, **choice: Any) -> MemberAnswer:
    return MemberAnswer("answered", body(text, tokens, **choice), tokens=10 + tokens, ms=7)


def told(found: Folded) -> dict[str, Any]:
    assert found.body is not None
    assert found.error is None
    read: dict[str, Any] = json.loads(found.body)
    return read


def test_a_votes_answer_is_the_first_of_its_winners_with_all_their_usage_and_the_trace() -> None:
    answers = {2: answered("no", 5), 1: answered("yes", 3), 0: answered("yes", 4, logprobs={"content": []})}
    made = told(fold("vote").fold(answers))
    assert made.pop("usage") == {
        "prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42, "prompt_tokens_details": {"cached_tokens": 6},
    }  # fmt: skip
    assert made.pop("penstock") == {
        "ensemble": "panel", "version": "v3", "kind": "vote", "winner": "small", "agreement": 0.6667,
        "members": [
            {"model": "small", "outcome": "answered", "tokens": 14, "ms": 7, "vote": "yes"},
            {"model": "small#2", "outcome": "answered", "tokens": 13, "ms": 7, "vote": "yes"},
            {"model": "big", "outcome": "answered", "tokens": 15, "ms": 7, "vote": "no"},
        ],
    }  # fmt: skip
    assert answers[0].body is not None
    assert made == {name: value for name, value in json.loads(answers[0].body).items() if name != "usage"}


def test_members_that_gave_no_answer_stand_in_the_trace_and_cost_nothing() -> None:
    answers = {
        0: MemberAnswer("refused", code="context_length_exceeded", refused_status=400),
        1: MemberAnswer("cancelled"),
        2: MemberAnswer("reused", body("yes"), tokens=11),
    }
    made = told(fold("vote").fold(answers))
    assert [(one["model"], one["outcome"], one.get("code")) for one in made["penstock"]["members"]] == [
        ("small", "refused", "context_length_exceeded"), ("small#2", "cancelled", None), ("big", "reused", None),
    ]  # fmt: skip
    assert (made["penstock"]["winner"], made["usage"]["total_tokens"]) == ("big", 11)


def test_until_it_is_decided_there_is_no_answer_and_what_was_heard_once_is_not_read_again() -> None:
    one = fold("vote")
    first = answered("yes")
    heard = {0: one.heard(first, 0)}
    assert one.fold({0: first}, heard) == Folded(one.fold({0: first}).verdict)
    worn = MemberAnswer("answered", b'{"choices":[]}')
    assert told(one.fold({0: worn, 1: answered("yes")}, heard | {1: heard[0]}))["penstock"]["agreement"] == 1


def test_a_cascade_says_whose_answer_was_not_good_enough() -> None:
    one = fold("cascade", accept={"regex": "^yes"})
    early = one.fold({0: answered("no")})
    assert (early.verdict.asks, early.body, early.error) == ((1,), None, None)
    made = told(one.fold({0: answered("no"), 1: answered("yes")}))["penstock"]
    assert (made["winner"], [one.get("accepted") for one in made["members"]]) == ("small#2", [False, None])
    assert "degraded" not in made
    assert "agreement" not in made
    left = told(one.fold({0: answered("no"), 1: MemberAnswer("failed", code="request_timeout"),
                          2: MemberAnswer("unavailable", code="no_worker")}))  # fmt: skip
    assert (left["penstock"]["winner"], left["penstock"]["degraded"]) == ("small", True)
    assert left["choices"][0]["message"]["content"] == "no"


def test_logprobs_that_only_the_ensemble_asked_for_are_not_in_the_answer() -> None:
    logprobs = {"content": [{"token": "yes", "logprob": -0.1}]}
    one = fold("cascade", accept={"mean_logprob_over": -0.4})
    answers = {0: answered("yes", logprobs=logprobs)}
    assert told(one.fold(answers))["choices"][0]["logprobs"] is None
    assert told(one.fold(answers, keeps_logprobs=True))["choices"][0]["logprobs"] == logprobs
    by_text = fold("cascade", accept={"regex": "yes"})
    assert told(by_text.fold(answers))["choices"][0]["logprobs"] == logprobs, "the request's own"
    assert without_logprobs(b'{"a":1e0,"choices":[{"x":1e0,"logprobs":{"content":[]}}]}') == (
        b'{"a":1e0,"choices":[{"x":1e0,"logprobs":null}]}'
    ), "all else is as it was written"
    for odd in (b'"logprobs"', b'{"choices":7,"logprobs":1}', b'{"choices":[7],"logprobs":1}', b'{"logprobs":1'):
        assert without_logprobs(odd) == odd


def test_too_few_answers_are_an_error_that_says_what_became_of_each() -> None:
    failed = {
        0: MemberAnswer("refused", code="context_length_exceeded", refused_status=400),
        1: MemberAnswer("failed", code="request_timeout"),
        2: MemberAnswer("unavailable"),
    }
    members = "small: context_length_exceeded; small#2: request_timeout; big: unavailable"
    message = f"Too few members of the ensemble 'panel' answered ({members})."
    for one in (fold("vote"), fold("fallback"), fold("cascade", accept={"regex": "x"})):
        found = one.fold(failed)
        assert (found.verdict.decided, found.body, found.error) == (True, None, (QUORUM, message))
    least = fold("vote", min_responses=2, extract={"regex": "yes|no"})
    assert least.fold({0: answered("yes"), 1: answered("what?"), 2: failed[1]}).error == (
        QUORUM, "Too few members of the ensemble 'panel' answered (small#2: no vote; big: request_timeout).",
    )  # fmt: skip


def test_where_one_failed_member_is_the_requests_failure_that_is_what_is_said() -> None:
    lost = MemberAnswer("failed", code="request_timeout")
    one = fold("cascade", accept={"regex": "^yes"}, on_error="fail")
    message = "A member of the ensemble 'panel' did not answer (small#2: request_timeout)."
    assert one.fold({0: answered("no"), 1: lost}).error == (QUORUM, message)
    assert fold("vote", on_error="fail").fold({1: lost}).error == (QUORUM, message)


def test_usage_is_the_sum_of_what_is_said_of_it() -> None:
    one, other = b'{"usage":{"a":1,"d":{"x":1},"s":"t","n":null}}', b'{"usage":{"a":2,"b":3,"d":{"x":2,"y":1},"n":4}}'
    total = {"a": 3, "b": 3, "d": {"x": 3, "y": 1}, "s": "t", "n": 4}
    assert summed_usage([one, b'{"usage":null}', b"{}", b"no", b"\xff", other]) == total
    assert summed_usage([b"{}", b"no"]) is None
    assert summed_usage([]) is None
    assert summed_usage([b'{"usage":{"d":7}}', b'{"usage":{"d":{"x":1}}}']) == {"d": {"x": 1}}


def test_an_answer_of_odd_text_is_folded_too() -> None:
    raw = b'{"choices":[{"message":{"content":"\\ud83d"}}],"usage":{"total_tokens":1}}'
    found = fold("vote").fold({place: MemberAnswer("answered", raw) for place in range(3)})
    made = told(found)
    assert made["choices"][0]["message"]["content"] == made["penstock"]["members"][0]["vote"] == "?"
    assert made["usage"]["total_tokens"] == 3
