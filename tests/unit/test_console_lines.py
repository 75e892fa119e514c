"""Answers as people read them, the beginning of texts, and cells that are no formulas."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest

from penstock.console import csv_export, words
from penstock.console.batches import answers, exports
from penstock.console.batches.line_forms import LineChanges
from penstock.domain.api_errors import BadRequest

NUMBERS = [0.25] * 768


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}, "hi"),
        ({"choices": [{"message": {"content": None, "refusal": "no"}}]}, "no"),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}}]}, '[{"id":"1"}]'),
        ({"choices": [{"text": "hi"}]}, "hi"),
        ({"choices": [{"text": ""}]}, ""),
        ({"output": [{"type": "reasoning"}, {"type": "message", "content": [{"text": "h"}, {"text": "i"}]}]}, "hi"),
        ({"data": [{"embedding": NUMBERS}]}, "768 numbers"),
        ({"data": [{"embedding": NUMBERS}, {"embedding": NUMBERS}]}, "2 × 768 numbers"),
        ({"data": [{"embedding": base64.b64encode(bytes(4 * 768)).decode()}]}, "768 numbers"),
        ({"data": [{"score": 0.5}, {"score": 0.25}]}, "0.5, 0.25"),
        ({"choices": []}, '{"choices": []}'),
        ({"choices": [7]}, '{"choices": [7]}'),
        ({"choices": [{"message": {"content": [1]}}]}, '{"choices": [{"message": {"content": [1]}}]}'),
        ([1], "[1]"),
    ],
)
def test_an_answer_is_what_the_model_said(body: object, text: str) -> None:
    assert answers.read(json.dumps(body)).text == text


def test_of_an_answer_that_is_cut_the_beginning_is_read() -> None:
    whole = json.dumps({"choices": [{"message": {"content": json.dumps({"a": 1, "b": "x" * 100})}}]})
    cut = answers.read(whole[:-50], cut=True)
    assert cut.text.startswith('{"a": 1, "b": "xxx')
    assert cut.fields is not None
    assert cut.fields["a"] == 1
    vector = json.dumps({"data": [{"embedding": NUMBERS}]})
    assert answers.read(vector[:500], cut=True).text.endswith("numbers or more")
    assert answers.read("[" * 10_000, cut=True).text == "[" * 10_000


def test_columns_are_the_first_keys_of_answers_that_are_all_objects() -> None:
    one, other = (answers.LineAnswer("", {f"{name}{n}": n for n in range(8)}) for name in "ab")
    assert answers.columns([one, other]) == (*(f"a{n}" for n in range(8)), *(f"b{n}" for n in range(4)))
    assert answers.columns([one, answers.LineAnswer("text")]) == ()


def test_json_is_laid_out_unless_that_makes_it_far_longer() -> None:
    assert answers.laid_out('{"a":[1.0,"\\u00fc"]}', False) == '{\n  "a": [\n    1.0,\n    "\\u00fc"\n  ]\n}'
    deep = "[" * 900 + "]" * 900
    for as_it_was in (deep, "[" * 8_000 + "]" * 8_000, '{"a":', "text"):
        assert answers.laid_out(as_it_was, False) == as_it_was


def test_an_excerpt_takes_no_more_of_a_page_than_it_may() -> None:
    assert words.excerpt("short", 100) == "short"
    for evil in ("<" * 5_000, "\u202e" * 5_000, "ü" * 5_000, "x" * 9_000_000):
        shown = words.excerpt(evil, 1_000)
        assert len(shown.replace("<", "&#34;").encode()) <= 1_005
        assert shown.endswith(" …")


@pytest.mark.parametrize("formula", ["=1", "+1", "-1", "@a", "\tx", "\rx"])
def test_no_cell_is_a_formula(formula: str) -> None:
    assert csv_export.safe(formula) == f"'{formula}"
    assert csv_export.safe(f"x{formula}") == f"x{formula}"
    assert csv_export.safe(-1) == -1


def test_lines_come_whole_whatever_pieces_the_file_comes_in() -> None:
    data = b"\n".join(b"%d" % n * (n % 7 + 1) for n in range(500)) + b"\n\nlast"

    async def pieces(size: int) -> AsyncIterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    async def lines(size: int) -> list[bytes]:
        return [line async for chunk in exports.chunks(pieces(size)) for line in chunk]

    for size in (1, 7, 4_096):
        assert asyncio.run(lines(size)) == [line for line in data.split(b"\n") if line]


def test_a_line_that_cannot_be_read_is_a_row_all_the_same() -> None:
    assert exports.row(b"nonsense").own == (None, None, None, None, None, "nonsense")


def test_what_is_typed_is_asked_as_the_api_takes_it() -> None:
    assert LineChanges().asked() == {}
    assert LineChanges("512", "0.5", "m").asked() == {"set": {"max_tokens": 512, "temperature": 0.5}, "model": "m"}
    for wrong in (LineChanges("1.5"), LineChanges("-1"), LineChanges("", "nan"), LineChanges("", "warm")):
        with pytest.raises(BadRequest, match="must be a"):
            wrong.asked()
