"""Sequences: what a body asks an engine to work on at once, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.formats import sequences


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, 1),
        ({"messages": [], "n": 128}, 128),
        ({"prompt": "a", "n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b", "c"]}, 3),
        ({"prompt": ["a", "b", "c"], "n": 4}, 12),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": []}, 1),
        ({"input": ["a"] * 2_000}, 2_000),
        ({"input": [{"role": "user", "content": "a"}] * 3}, 1),
        ({"query": "a", "documents": ["b", "c"]}, 2),
        ({"text_1": "a", "text_2": ["b", "c", "d"]}, 3),
        ({"queries": "a", "items": ["b", "c", "d"]}, 3),
        ({"messages": [], "items": ["b", "c", "d"]}, 1),
        ({"prompt": "a", "n": True}, 1),
        ({"prompt": "a", "n": "many"}, 1),
        ({"prompt": "a", "n": -3}, 1),
        ({"prompt": "a", "n": None, "best_of": 1.5}, 1),
        ({"prompt": ["a"] * 10_000, "n": 128}, sequences.MOST),
    ],
)
def test_choices_times_texts(body: dict[str, Any], count: int) -> None:
    assert sequences.of_body(json.dumps(body).encode()) == count
    assert sequences.of_body(json.dumps(body, separators=(",", ":")).encode()) == count


def test_names_with_escapes_count_too() -> None:
    assert sequences.of_body(b'{"\\u006e": 7, "prompt": "a"}') == 7


def test_a_text_that_only_speaks_of_choices_is_one() -> None:
    assert sequences.of_body(json.dumps({"prompt": 'say {"n": 5}'}).encode()) == 1


@pytest.mark.parametrize("body", [b"", b'{"n": ', b'[{"n": 2}]', b'{"n": 99999999999999999999}', b'{"prompt": ["a", '])
def test_what_cannot_be_read_is_one(body: bytes) -> None:
    assert sequences.of_body(body) == 1
