"""What a stream says of its tokens: a sum, or nothing, and all else as it came."""

from __future__ import annotations

import json
from typing import Any

from penstock.formats import stream_request
from penstock.formats.answers.stream_start import writes_text
from penstock.formats.answers.stream_usage import body_of_usage, with_sum
from penstock.formats.output import usage_of

BEFORE = {"prompt_tokens": 10, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 1}}
OWN = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
SUM = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 2}}
DONE = b"data: [DONE]\n\n"


def event(value: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    return event({"choices": list(choices), **more})


def said(events: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in events.split(b"\n") if line.startswith(b"data: {")]


def test_a_streams_usage_is_the_sum_or_is_not_said() -> None:
    text = chunk({"delta": {"content": '"usage"'}}, id="  as it was")
    whole = text + chunk(usage=OWN) + DONE
    assert with_sum(whole, BEFORE, wanted=False) == text + DONE
    summed = with_sum(whole, BEFORE, wanted=True)
    assert summed.startswith(text)
    assert said(summed)[1] == {"choices": [], "usage": SUM}
    assert said(with_sum(whole, None, wanted=True))[1]["usage"] == OWN


def test_usage_that_stands_in_a_choices_chunk_goes_or_is_summed_and_the_choice_stays() -> None:
    end = {"delta": {}, "finish_reason": "stop"}
    whole = chunk(end, usage=OWN) + chunk(end, usage=None)
    assert said(with_sum(whole, BEFORE, wanted=False)) == [{"choices": [end]}, {"choices": [end]}]
    assert [one["usage"] for one in said(with_sum(whole, BEFORE, wanted=True))] == [SUM, None]


def test_a_response_says_the_sum_at_its_end_under_its_event() -> None:
    begun = event({"type": "response.created", "response": {"usage": None}}, "response.created")
    ended = event({"type": "response.completed", "response": {"usage": OWN, "id": "x"}}, "response.completed")
    found = with_sum(begun + ended, BEFORE, wanted=False)
    assert found.count(b"event: response.") == 2
    assert [one["response"] for one in said(found)] == [{"usage": None}, {"usage": SUM, "id": "x"}]
    assert json.loads(body_of_usage(begun + ended)) == {"usage": OWN}
    assert json.loads(body_of_usage(begun)) == {}


def test_only_text_is_text() -> None:
    assert not writes_text(chunk({"delta": {"role": "assistant", "content": " \n"}}) + DONE)
    assert not writes_text(chunk({"delta": {"reasoning": "hm"}}) + chunk({"delta": {}, "finish_reason": "stop"}))
    assert not writes_text(event({"type": "response.reasoning_text.delta", "delta": "hm"}))
    assert writes_text(chunk({"delta": {"content": "a"}}))
    assert writes_text(chunk({"text": "a"}))
    assert writes_text(event({"type": "response.output_text.delta", "delta": "a"}))


def test_a_bodys_stream_is_taken_out_and_said_anew() -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":1},"messages":[1e999]}'
    assert stream_request.wants_usage(body)
    bare = stream_request.without_stream(body)
    assert bare == b'{"model":"m","messages":[1e999]}'
    assert not stream_request.wants_usage(bare)
    assert not stream_request.wants_usage(b'{"stream_options":5}')
    again = stream_request.with_stream(bare, "/v1/completions")
    assert again == b'{"model":"m","messages":[1e999],"stream":true,"stream_options":{"include_usage":true}}'
    assert stream_request.with_stream(b"{}", "/v1/responses") == b'{"stream":true}'


def test_half_a_surrogate_pair_in_an_answer_costs_no_token_its_count() -> None:
    answer = rb'{"choices":[{"text":"\ud83d"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}'
    assert usage_of(answer).total_tokens == 8
