"""A whole answer as a stream: what its events say, put together again, is the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.answers.answer_stream import answer_events
from penstock_worker.engine.echo import stream as echo

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
PENSTOCK = {"ensemble": "mine"}
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
reason = st.sampled_from(["stop", "length"])
number = st.floats(-20, 0)


def _events(body: dict[str, Any], endpoint: str = CHAT, *, with_usage: bool = False) -> list[Any]:
    found = []
    for event in answer_events(json.dumps(body).encode(), endpoint, with_usage=with_usage):
        assert event.endswith(b"\n\n")
        *names, data = event[:-2].split(b"\n")
        assert data.startswith(b"data: ")
        value = "[DONE]" if data == b"data: [DONE]" else json.loads(data[6:])
        assert [name.decode() for name in names] == ([f"event: {value['type']}"] if endpoint == RESPONSES else [])
        found.append(value)
    return found


def _grown(value: Any, more: Any) -> Any:
    """As OpenAI's SDK puts deltas together."""
    if isinstance(value, dict) and isinstance(more, dict):
        return value | {name: _grown(value.get(name), one) for name, one in more.items()}
    if value is None or more is None:
        return value if more is None else more
    return value + more if isinstance(value, str | list) else more


def _put_together(events: list[Any], kind: str) -> dict[int, dict[str, Any]]:
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        assert event["object"] == kind
        for choice in event["choices"]:
            before = choices.setdefault(choice["index"], {"index": choice["index"]})
            assert before.get("finish_reason") is None, "nothing comes behind its end"
            choices[choice["index"]] = _grown(before, choice)
    return choices


def _answer(choices: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [{"index": index, **choice} for index, choice in enumerate(choices)]
    head = {"id": "x", "object": "?", "created": 5, "model": "mine", "service_tier": "flex"}
    return {**head, "choices": numbered, "usage": USAGE, "penstock": PENSTOCK}


@st.composite
def chat_choices(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(st.lists(text, max_size=40))
    said = draw(st.sampled_from(["".join(tokens), draw(text)]))
    rows = [{"token": token, "logprob": draw(number), "bytes": [1], "top_logprobs": []} for token in tokens]
    logprobs = draw(st.sampled_from([None, {"content": rows, "refusal": None}]))
    message = {"role": "assistant", "content": said} | draw(st.sampled_from([{}, {"reasoning": "hm " * 90}]))
    return {"message": message, "logprobs": logprobs, "finish_reason": draw(reason), "stop_reason": 7}


@st.composite
def completion_choices(draw: st.DrawFn) -> dict[str, Any]:
    tokens = draw(st.lists(text, min_size=1, max_size=40))
    said = draw(st.sampled_from(["".join(tokens), draw(text)]))
    columns = {"tokens": tokens, "token_logprobs": [draw(number) for _ in tokens], "text_offset": [0 for _ in tokens]}
    logprobs = draw(st.sampled_from([None, columns | {"top_logprobs": None}]))
    return {"text": said, "logprobs": logprobs, "finish_reason": draw(reason)}


@given(st.lists(chat_choices(), min_size=1, max_size=3))
def test_a_chats_chunks_put_together_are_the_chat(choices: list[dict[str, Any]]) -> None:
    answer = _answer(choices)
    *events, last = _events(answer)
    assert last == "[DONE]"
    assert not any("penstock" in event or "usage" in event for event in events)
    assert all((event["id"], event["model"], event["service_tier"]) == ("x", "mine", "flex") for event in events)
    found = _put_together(events, "chat.completion.chunk")
    assert [one | {"message": one.pop("delta")} for one in found.values()] == answer["choices"]


@given(st.lists(completion_choices(), min_size=1, max_size=3))
def test_a_completions_chunks_put_together_are_the_completion(choices: list[dict[str, Any]]) -> None:
    answer = _answer(choices)
    *events, _ = _events(answer, COMPLETIONS)
    assert list(_put_together(events, "text_completion").values()) == answer["choices"]


@given(text.filter(bool), st.sampled_from(["completed", "incomplete"]))
def test_a_responses_events_say_it_part_by_part_and_then_whole(said: str, status: str) -> None:
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": [{"token": said, "logprob": -1.0}]}
    thought = {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    message = {"type": "message", "id": "m", "role": "assistant", "status": status, "content": [part]}
    answer = {"id": "x", "object": "response", "status": status, "output": [thought, message], "usage": USAGE}
    events = _events(answer | {"penstock": PENSTOCK}, RESPONSES)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(event["delta"] for event in deltas) == said
    assert [row for event in deltas for row in event["logprobs"]] == part["logprobs"]
    assert {(event["item_id"], event["output_index"]) for event in deltas} == {("m", 1)}
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == [thought, message]
    assert (events[-1]["type"], events[-1]["response"]) == (f"response.{status}", answer)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES])
def test_the_events_are_those_that_the_engines_own_stream_has(endpoint: str) -> None:
    part = {"type": "output_text", "text": "one", "annotations": [], "logprobs": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    choice = {"finish_reason": "stop", "text": "one", "message": {"role": "assistant", "content": "one"}}
    answer = _answer([choice]) | {"status": "completed", "output": [message]}
    kind = echo.KINDS[endpoint]
    wanted = [event for _, event, _ in echo.events(answer, kind, 1, True)]
    found = [event for event in _events(answer, endpoint, with_usage=True) if event != "[DONE]"]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() - {"service_tier"} == other.keys()
        assert one.get("type") == other.get("type")
        if endpoint != RESPONSES:
            bare = [{name: value for name, value in choice.items() if name != "logprobs"} for choice in one["choices"]]
            assert (bare, one.get("usage")) == (other["choices"], other.get("usage"))


def test_usage_comes_last_if_it_is_asked_for_and_a_long_text_in_few_pieces() -> None:
    answer = _answer([{"message": {"content": "word " * 100_000}, "finish_reason": "stop"}])
    events = _events(answer, with_usage=True)
    assert (events[-2]["choices"], events[-2]["usage"], events[-1]) == ([], USAGE, "[DONE]")
    assert len(events) < 262


@pytest.mark.parametrize("body", [{}, {"choices": 5}, {"choices": [{}]}, {"output": [{}]}, {"choices": [{"text": 5}]}])
@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_what_is_no_such_answer_is_one_event(body: dict[str, Any], endpoint: str) -> None:
    assert _events(body, endpoint) == [body, "[DONE]"]
