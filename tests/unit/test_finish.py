"""Finishes: whole, truncated, or empty, in the words of each endpoint."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.domain.line_errors import TIMED_OUT
from penstock.formats import output
from penstock.formats.answers.finish import Finish, finish


def chat(end: str, **message: Any) -> dict[str, Any]:
    return {"finish_reason": end, "message": {"role": "assistant", "content": None} | message}


def response(*items: dict[str, Any], status: str = "incomplete") -> dict[str, Any]:
    return {"object": "response", "status": status, "output": list(items)}


def message(text: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


THOUGHTS = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
CASES = [
    ({"choices": [chat("stop", content="yes")]}, Finish.WHOLE),
    ({"choices": [chat("stop", content='the "length" of it')]}, Finish.WHOLE),
    ({"choices": [chat("stop", content="")]}, Finish.WHOLE),
    ({"choices": [chat("length", content="ye")]}, Finish.TRUNCATED),
    ({"choices": [chat("length", content="\ud800")]}, Finish.TRUNCATED),
    ({"choices": [chat("length", content="", tool_calls=[{"id": "t"}])]}, Finish.TRUNCATED),
    ({"choices": [chat("length", content="", function_call={"name": "f"})]}, Finish.TRUNCATED),
    ({"choices": [chat("length", content=""), chat("stop", content="yes")]}, Finish.TRUNCATED),
    ({"choices": [chat("length", reasoning_content="hm")]}, Finish.EMPTY),
    ({"choices": [chat("length", content=" \n", reasoning="hm", tool_calls=[])]}, Finish.EMPTY),
    ({"choices": [chat("length"), chat("length")]}, Finish.EMPTY),
    ({"choices": [{"finish_reason": "length", "text": "ye"}]}, Finish.TRUNCATED),
    ({"choices": [{"finish_reason": "length", "text": ""}]}, Finish.EMPTY),
    (response(message("yes"), status="completed"), Finish.WHOLE),
    (response(THOUGHTS, message("ye")), Finish.TRUNCATED),
    (response(THOUGHTS, {"type": "function_call", "name": "f"}), Finish.TRUNCATED),
    (response(THOUGHTS, message("")), Finish.EMPTY),
    (response(THOUGHTS), Finish.EMPTY),
    (response(), Finish.EMPTY),
    ({"data": [{"embedding": [1.0], "why": "length"}]}, Finish.WHOLE),
    ({"choices": "length"}, Finish.WHOLE),
    ({"choices": [7, "length"]}, Finish.WHOLE),
]


def written(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


@pytest.mark.parametrize(("answer", "wanted"), CASES)
def test_an_answer_ends_as_its_endpoint_says_it(answer: dict[str, Any], wanted: Finish) -> None:
    assert finish(written(answer)) is wanted


@given(st.binary(max_size=80))
@example(b'"length"')
@example(b'{"choices":[{"finish_reason":"length"')
@example(b'{"choices":' + b"[" * 50_000 + b'"length"')
def test_any_bytes_end_somehow(body: bytes) -> None:
    assert isinstance(finish(body), Finish)


def test_a_record_is_empty_only_where_it_was_answered() -> None:
    body = msgspec.json.encode({"choices": [chat("length")], "usage": {"completion_tokens": 8}})
    record = output.answered("batch_x", 1, "a", 200, "r", body)
    assert (record.empty, record.usage.output_tokens) == (True, 8)
    assert not output.answered("batch_x", 1, "a", 400, "r", body).empty
    assert not output.ended("batch_x", 1, "a", TIMED_OUT).empty


def test_tokens_that_no_answer_has_are_not_counted_as_they_are_said() -> None:
    said = {"prompt_tokens": -5, "completion_tokens": 10**18, "prompt_tokens_details": {"cached_tokens": -1}}
    usage = output.answered("b", 1, "a", 200, "r", msgspec.json.encode({"choices": [], "usage": said})).usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (0, 0, 1_000_000_000)
    huge = b'{"choices":[],"usage":{"prompt_tokens":1' + b"0" * 40 + b',"completion_tokens":1e30}}'
    assert output.answered("b", 1, "a", 200, "r", huge).usage.total_tokens <= 2_000_000_000
