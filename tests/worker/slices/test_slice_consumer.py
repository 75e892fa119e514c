"""What lines become on their way: the body that the engine gets, and the line that is recorded of its answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.work.batch import LineError
from penstock.formats import input as lines
from penstock.formats import output
from penstock.formats.engine_body import for_line

CHAT = "/v1/chat/completions"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def recorded(body: bytes, status: int = 200) -> tuple[output.Record, object]:
    """The record of an engine's answer, and the answer as a client reads it."""
    record = output.answered("batch_1", 7, "mine", status, "req", body)
    assert b"\n" not in record.line
    line = json.loads(record.line)
    told = 502 if status == 200 and record.failed else status
    assert (line["custom_id"], line["response"]["status_code"]) == ("mine", told)
    return record, line["response"]["body"]


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"9" * 400, b"1" + b"0" * 5_000, b"0.1e-400"])
def test_every_line_that_passes_its_check_can_be_sent(number: bytes) -> None:
    body = b'{"model":"m","priority":1,"x":' + number + b"}"
    line = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + b"}"
    if not isinstance(lines.check(line, 1, CHAT, 512), LineError):
        assert for_line(lines.read(1, line).body, CHAT, "a", False, None) == b'{"model":"m","x":' + number + b"}"


@given(
    st.binary(max_size=60) | st.text().map(str.encode) | values.map(lambda value: json.dumps(value, indent=1).encode())
)
def test_whatever_an_engine_answers_is_recorded_as_one_line_of_json(body: bytes) -> None:
    recorded(body)


@given(st.dictionaries(st.text(), values, max_size=4), st.sampled_from([None, 1]))
def test_an_answer_is_read_by_the_client_as_the_engine_gave_it(answer: dict[str, object], indent: int | None) -> None:
    assert recorded(json.dumps(answer, indent=indent).encode())[1] == answer


def test_half_a_surrogate_pair_stays_in_the_answer_and_its_tokens_are_counted() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    record, body = recorded(b'{"choices":[{"text":"a\\ud83d"}],"usage":%b}' % json.dumps(usage).encode())
    assert body == {"choices": [{"text": "a\ud83d"}], "usage": usage}
    assert (record.failed, record.usage.input_tokens, record.usage.output_tokens) == (False, 5, 3)


@pytest.mark.parametrize(
    "body",
    [b"502 Bad Gateway", b"[1", b'{"usage":3', b"", b"\xff\xfe", b"[" * 50_000, b'{"x":1e999', b"[1,2]", b"null"],
)
@pytest.mark.parametrize("status", [502, 200])
def test_what_is_no_json_is_quoted_in_an_error_object_and_no_answer(body: bytes, status: int) -> None:
    record, answer = recorded(body, status)
    assert (record.failed, b'"status_code":502' in record.line) == (True, True)
    assert isinstance(answer, dict)
    assert answer["error"]["code"] == "not_json"
    assert answer["error"]["message"] == body[:2_000].decode(errors="replace")
