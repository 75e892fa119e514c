"""Rows are chosen, asked in files that are not too large, and joined with what came back for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.tables.answer_schema import load_schema
from penstock.cli.tables.input_table import open_table
from penstock.cli.tables.prompt_template import PromptTemplate
from penstock.cli.tables.row_answers import NewColumns, RowAnswer, merged, read_line
from penstock.cli.tables.row_choice import RowChoice
from penstock.cli.tables.row_requests import RowPrompts, RowRequests, cut, request_body, row_number
from penstock.cli.tables.table_format import TableFormat
from penstock.stack.problem import Problem


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 5))
def test_a_sample_has_a_row_of_each_part_of_the_table(count: int, sample: int, seed: int) -> None:
    choice = RowChoice.of(count, None, sample, seed)
    taken = [number for number in range(count) if choice.takes(number)]
    assert len(taken) == choice.count == min(count, sample)
    assert all(
        part * count // len(taken) <= number < (part + 1) * count // len(taken) for part, number in enumerate(taken)
    )


def test_the_same_seed_draws_the_same_rows_and_another_others() -> None:
    def taken(seed: int) -> list[int]:
        return [number for number in range(1_000) if RowChoice.of(1_000, None, 10, seed).takes(number)]

    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_a_limit_takes_the_first_rows() -> None:
    choice = RowChoice.of(100, 3, None, 0)
    assert [number for number in range(100) if choice.takes(number)] == [0, 1, 2]


def requests(folder: Path, rows: int, prompt: str = "say {{ id }}", **body: Any) -> RowRequests:
    """The requests of a table whose one column counts from 0."""
    (folder / "t.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(rows)))
    table = open_table(folder / "t.csv", "t.csv", TableFormat.CSV)
    prompts = RowPrompts(PromptTemplate(prompt, ["id"], "--prompt"))
    return RowRequests(table, RowChoice.of(rows, None, None, 0), prompts, body)


def test_a_request_is_a_line_that_the_batch_api_takes(tmp_path: Path) -> None:
    body = request_body("tiny", 5, 0.0, None, {"top_p": 0.5})
    line = next(requests(tmp_path, 1, **body).starting(0)).line
    assert line is not None
    assert json.loads(line) == {
        "custom_id": "row-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "tiny", "max_tokens": 5, "temperature": 0.0, "top_p": 0.5,
            "messages": [{"role": "user", "content": "say 0"}],
        },
    }  # fmt: skip


@pytest.mark.parametrize(("most_lines", "most_bytes"), [(3, 10**6), (100, 400), (1, 10**6), (100, 1)])
def test_files_hold_what_they_may_and_together_every_row_once(tmp_path: Path, most_lines: int, most_bytes: int) -> None:
    file = tmp_path / "requests"
    seen: list[str] = []
    for piece in cut(requests(tmp_path, 10).starting(0), file, most_lines, most_bytes):
        lines = file.read_bytes().splitlines(keepends=True)
        assert len(lines) == piece.lines <= most_lines
        assert len(b"".join(lines)) <= most_bytes or len(lines) == 1
        seen += [json.loads(line)["custom_id"] for line in lines]
        assert piece.end_row == len(seen)
    assert seen == [f"row-{n + 1}" for n in range(10)]
    assert not file.exists()


def test_a_later_call_goes_on_behind_the_last_file(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    all_ = requests(tmp_path, 10)
    first = next(iter(cut(all_.starting(0), file, 4)))
    rest = [piece.lines for piece in cut(all_.starting(first.end_row), file, 4)]
    assert (first.lines, rest) == (4, [4, 2])


def test_rows_that_make_no_prompt_are_passed_over(tmp_path: Path) -> None:
    all_ = requests(tmp_path, 6, prompt="{{ 6 // (id|int % 2) }}")
    assert [piece.lines for piece in cut(all_.starting(0), tmp_path / "requests", 100)] == [3]
    assert next(all_.starting(0)).fault == "template: ZeroDivisionError: integer division or modulo by zero"


def line(number: int, **more: Any) -> bytes:
    """A line of an output or error file."""
    return json.dumps({"id": "x", "custom_id": f"row-{number + 1}", "response": None, "error": None} | more).encode()


def answered(number: int, text: str | None, **message: Any) -> bytes:
    """A line with an answer."""
    choice = {"message": {"role": "assistant", "content": text} | message, "finish_reason": "stop"}
    return line(number, response={"status_code": 200, "request_id": "r", "body": {"choices": [choice]}})


def test_output_and_errors_are_one_sequence_in_the_order_of_the_rows() -> None:
    failed = line(1, error={"code": "request_timeout", "message": "too\nlate"})
    found = list(merged([answered(0, "a"), answered(2, "c"), answered(10, "d")], [failed], int))
    assert [one.number for one in found] == [0, 1, 2, 10]
    assert found[1] == RowAnswer(1, None, "request_timeout: too late")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (line(0, response={"status_code": 400, "body": {"error": {"message": "no", "code": 400}}}), "400: no"),
        (line(0, response={"status_code": 502, "body": "bad gateway"}), "502: bad gateway"),
        (answered(0, None, refusal="I won't"), "refused: I won't"),
        (answered(0, ""), "the answer is empty (stop)"),
    ],
)
def test_a_row_without_an_answer_has_its_reason(raw: bytes, reason: str) -> None:
    assert read_line(raw, int) == RowAnswer(0, None, reason)


def test_half_a_surrogate_pair_is_written_as_what_it_is() -> None:
    assert read_line(answered(0, "a\ud800"), int).text == "a\\ud800"


def test_without_a_schema_the_answer_is_one_column_and_the_reason_another() -> None:
    new = NewColumns(None, "summary", "x_")
    assert [column.name for column in new.columns] == ["x_summary", "x_error"]
    assert [column.name for column in NewColumns(None, "error").columns] == ["error", "map_error"]
    assert new.values(RowAnswer(0, "so", None)) == ["so", None]
    assert new.values(RowAnswer(0, None, "why")) == [None, "why"]


def test_an_answers_properties_are_its_columns_and_a_mismatch_a_reason(tmp_path: Path) -> None:
    schema = {"properties": {"n": {"type": "integer"}, "note": {"type": "string"}}, "required": ["n"]}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    new = NewColumns(load_schema(str(tmp_path / "s.json")), "answer")
    assert [column.name for column in new.columns] == ["n", "note", "error"]
    assert new.values(RowAnswer(0, '{"n": 3.0, "other": 1}', None)) == [3, None, None]
    assert new.values(RowAnswer(0, '{"note": "x"}', None)) == [None, None, "schema: $: 'n' is a required property"]
    assert new.values(RowAnswer(0, f'{{"n": {2**70}}}', None)) == [None, None, "schema: n has more than 64 bits"]
    assert new.values(RowAnswer(0, "[]", None)) == [None, None, "schema: it is no object"]


def test_a_line_that_was_refused_unread_is_the_row_of_its_number() -> None:
    refused = b'{"custom_id":null,"response":null,"error":{"code":"line_too_long","message":"too long","line":3}}'
    assert read_line(refused, lambda line: line * 10) == RowAnswer(30, None, "line_too_long: too long")


@pytest.mark.parametrize(
    "body",
    ["{}", "[]", "null", '{"choices":[]}', '{"choices":[{"message":null}]}', '{"choices":{"0":1}}', '{"choices":"ab"}',
     '{"choices":[{"message":{"content":[1]}}]}', '{"choices":[{"message":{"content":"a"}}],"n":' + "9" * 5_000 + "}"],
)  # fmt: skip
def test_an_answer_that_is_no_chat_completion_is_a_reason(body: str) -> None:
    line = f'{{"custom_id":"row-2","response":{{"status_code":200,"body":{body}}},"error":null}}'
    found = read_line(line.encode(), int)
    assert (found.number, found.text) == (1, None)
    assert re.match("the engine's answer is no |its answer can't be read: ", found.reason or "")


def test_an_answer_for_what_is_no_row_is_a_problem() -> None:
    for custom_id in ("row-x", "rows-1", "row-" + "9" * 5_000, ""):
        with pytest.raises(Problem, match="which was not asked"):
            row_number(custom_id)


def test_numbers_that_no_column_of_numbers_has_are_a_reason(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object", "properties": {"n": {"type": "number"}}}')
    new = NewColumns(load_schema(str(tmp_path / "s.json")), "answer")
    assert new.values(RowAnswer(0, '{"n": 1' + "0" * 400 + "}", None))[1] == (
        "schema: n is larger than any number of 64 bits"
    )
    (found, _) = new.values(RowAnswer(0, f'{{"n": {2**60 + 1}}}', None))
    assert isinstance(found, float)


def test_the_column_of_reasons_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"properties": {"error": {}, "map_error": {}}}')
    names = [one.name for one in NewColumns(load_schema(str(tmp_path / "s.json")), "answer").columns]
    assert names == ["error", "map_error", "map_map_error"]
