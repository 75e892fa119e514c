"""Formats on any bytes: frames come back as they went in, and no input line is a surprise."""

from __future__ import annotations

import contextlib

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.domain.work.batch import LineError
from penstock.domain.work.rank import Rank
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.formats.engine_body import for_line
from penstock.formats.input import Checked

CHAT = "/v1/chat/completions"

any_line = st.binary(max_size=200).map(lambda data: data.replace(b"\n", b""))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "custom_id": json_values,
        "method": st.just("POST") | json_values,
        "url": st.just(CHAT) | json_values,
        "body": json_values
        | st.fixed_dictionaries({}, optional=dict.fromkeys(("model", "stream", "max_tokens"), json_values)),
    },
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), any_line), max_size=8))
@example([(1, b"\r"), (2, b"a\rb")])
@example([(1, b"a\x0b\x0c\x1c\x1d\x1e\x85b")])
@example([(1, b""), (2, b"\t")])
def test_frames_come_back_as_they_went_in(numbered: list[tuple[int, bytes]]) -> None:
    assert list(plan.unframe(b"".join(plan.frame(number, line) for number, line in numbered))) == numbered


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_what_is_not_framed_is_a_value_error_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(plan.unframe(data))


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(1, 2))
@example(b"[" * 100_000, 1)
@example(b'{"custom_id":' + b"[" * 100_000, 1)
@example(b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + b'{"a":' * 50_000, 1)
@example(b'{"custom_id":"\\ud800","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}', 1)
@example(b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"\\udfff"}}', 1)
@example(b'{"custom_id":1e999}', 1)
@example(b'{"custom_id":' + b"9" * 5_000 + b"}", 1)
def test_a_check_of_any_bytes_is_an_answer(data: bytes, number: int) -> None:
    assert isinstance(lines.check(lines.tidy(data, number), number, CHAT, 512), Checked | LineError)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first draw builds tables of characters
@given(fields)
def test_a_check_of_any_json_is_an_answer_that_stays_true_for_the_reader(value: dict) -> None:
    line = msgspec.json.encode(value)
    checked = lines.check(line, 7, CHAT, 512)
    if isinstance(checked, LineError):
        assert checked.line == 7
        return
    read = lines.read(7, line)
    assert (read.custom_id, read.url, len(read.body)) == (checked.custom_id, CHAT, len(checked.body))
    assert isinstance(msgspec.json.decode(for_line(read.body, CHAT, "a", True, Rank.FLEX.priority())), dict)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40), st.integers(1, 10**6), st.integers(100, 599), st.binary(max_size=200))
def test_an_output_line_is_one_line_of_json_whatever_the_engine_said(
    custom_id: str, number: int, status: int, body: bytes
) -> None:
    record = output.answered("batch_x", number, custom_id, status, None, body)
    assert b"\n" not in record.line
    assert b"\r" not in record.line
    assert output.parse(record.line)["custom_id"] == custom_id
