"""When a stream has said something: until then another member of a fallback may still be asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.formats.answers.stream_start import says_something


def event(value: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def choice(**more: Any) -> bytes:
    return event({"object": "chunk", "choices": [{"index": 0, "finish_reason": None, **more}]})


@pytest.mark.parametrize(
    "events",
    [
        b"",
        b": a comment\n\n",
        choice(delta={"role": "assistant", "content": ""}),
        choice(delta={"role": "assistant", "content": None, "tool_calls": []}),
        choice(text=""),
        event({"type": "response.created", "response": {}}, "response.created")
        + event({"type": "response.content_part.added", "part": {"text": ""}}, "response.content_part.added"),
    ],
)
def test_a_beginning_says_nothing_yet(events: bytes) -> None:
    assert not says_something(events)


@pytest.mark.parametrize(
    "events",
    [
        choice(delta={"content": "a"}),
        choice(delta={"role": "assistant"}) + choice(delta={"reasoning_content": "hm"}),
        choice(delta={"tool_calls": [{"index": 0}]}),
        choice(text="a"),
        choice(delta={}, finish_reason="stop"),
        event({"choices": [], "usage": {}}),
        event({"type": "response.output_text.delta", "delta": "a"}, "response.output_text.delta"),
        b"data: [DONE]\n\n",
        b"data: {half\n\n",
    ],
)
def test_text_tools_an_end_and_what_is_not_understood_are_something(events: bytes) -> None:
    assert says_something(events)
