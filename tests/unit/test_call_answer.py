"""Engine answers: whole events, errors in OpenAI's envelope, and the tier that was used."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.answers import call_answer
from penstock.formats.answers.call_answer import MOST_HELD_BYTES, Events

event = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20).map(
    lambda text: f"data: {text}".encode()
)


@given(st.lists(event, max_size=8), st.sampled_from([b"\n\n", b"\r\n\r\n"]), event, st.data())
def test_only_whole_events_pass_however_they_are_cut_and_no_byte_is_lost(
    sent: list[bytes], end: bytes, begun: bytes, data: st.DataObject
) -> None:
    stream = b"".join(one + end for one in sent) + begun
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    events, passed = Events(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        whole = events.feed(stream[start:stop])
        assert whole == b"" or whole.endswith(end)
        passed.append(whole)
    assert b"".join(passed) == b"".join(one + end for one in sent)
    assert b"".join(passed) + events.rest() == stream


def test_an_event_without_an_end_is_not_held_without_an_end() -> None:
    events, passed = Events(), 0
    for _ in range(3 * MOST_HELD_BYTES // 65_536):
        passed += len(events.feed(b"x" * 65_536))
        assert len(events.held) <= MOST_HELD_BYTES
    assert passed > MOST_HELD_BYTES
    assert events.torn
    assert events.feed(b"\n\ndata: 1\n\n").endswith(b"data: 1\n\n")
    assert not events.torn


def test_the_tier_is_set_and_all_else_stays_as_it_was_written() -> None:
    assert call_answer.saying(b'{"a":1e999,"service_tier":null,"b":"\\u00e9"}', {"service_tier": "flex"}) == (
        b'{"a":1e999,"service_tier":"flex","b":"\\u00e9"}'
    )
    assert call_answer.saying(b'{"a": 1}', {"service_tier": "default"}) == b'{"a":1,"service_tier":"default"}'
    assert call_answer.saying(b"no JSON", {"service_tier": "flex"}) == b"no JSON"


def test_half_a_character_becomes_a_replacement_and_what_is_nested_too_deeply_stays() -> None:
    half = b'{"model":"x","text":"a\\ud800","n":1}'
    assert json.loads(call_answer.saying(half, {"model": "mine"})) == {"model": "mine", "text": "a?", "n": 1}
    deep = b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    assert call_answer.saying(deep, {"model": "mine"}) == deep
    event = b'data: {"object":"chat.completion.chunk","x":%b}\n\n' % deep
    assert call_answer.events_saying(event, {"model": "mine"}) == event


def test_each_event_carries_the_tier_and_a_responses_event_carries_it_inside() -> None:
    chunks = b'data: {"object":"chat.completion.chunk","x":1.0}\n\ndata: [DONE]\n\n'
    assert call_answer.events_saying(chunks, {"service_tier": "priority"}) == (
        b'data: {"object":"chat.completion.chunk","x":1.0,"service_tier":"priority"}\n\ndata: [DONE]\n\n'
    )
    events = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","service_tier":"auto"}}\n\n'
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n'
    )
    assert call_answer.events_saying(events, {"service_tier": "flex"}) == events.replace(b'"auto"', b'"flex"')


def test_an_engines_error_in_a_stream_gets_the_envelope_and_other_events_stay() -> None:
    stream = b'data: {"a": 1}\n\ndata: {"error": {"message": "m", "type": "t", "code": 500}}\n\ndata: [DONE]\n\n'
    first, error, end = call_answer.events_with_envelope(stream).split(b"\n\n")[:3]
    assert (first, end) == (b'data: {"a": 1}', b"data: [DONE]")
    assert json.loads(error[6:]) == {"error": {"message": "m", "type": "t", "param": None, "code": None}}
    quoted = b'data: {"text":"data: {\\"error\\""}\n\n'
    assert call_answer.has_error(stream)
    assert not call_answer.has_error(quoted)
