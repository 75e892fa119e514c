"""Forecasts: ranges that add up, and prompts as the engine's tokenizer wants them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.domain.accounts.batch_estimate import AnswerTokens, Spread, exactly, output_tokens, total
from penstock.formats import prompt

ANSWERS = [
    (AnswerTokens(40, 100), Spread(1, 40, 100)),
    (AnswerTokens(40, 100, measured=True), Spread(20, 40, 100)),
    (AnswerTokens(40, None, measured=True), Spread(20, 40, 160)),
    (AnswerTokens(40, 100, least=30, measured=True), Spread(30, 40, 100)),
    (AnswerTokens(40, 100, least=60), Spread(60, 60, 100)),
    (AnswerTokens(40, 100, fills=True, choices=3), Spread(300, 300, 300)),
    (AnswerTokens(40, 100, choices=2), Spread(2, 80, 200)),
]


@pytest.mark.parametrize(("answers", "wanted"), ANSWERS)
def test_an_answer_is_as_long_as_its_line_and_its_model_let_expect(answers: AnswerTokens, wanted: Spread) -> None:
    assert output_tokens(answers) == wanted


def test_all_lines_add_up_without_an_error_and_a_sample_with_one() -> None:
    values = [exactly(2), exactly(4), exactly(6)]
    assert total([1, 1, 1], values, whole=True) == exactly(12)
    some = total([10, 10, 10], values, whole=False)
    assert some.expected == 120
    assert 0 < some.low < 120 < some.high
    assert total([10, 10], [exactly(3)] * 2, whole=False) == exactly(60)
    assert total([], [], whole=True) == exactly(0)


CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
PROMPTS: list[tuple[str, dict[str, Any], list[dict[str, Any]] | None, int]] = [
    (CHAT, {"messages": MESSAGES, "temperature": 0, "tools": []}, [{"messages": MESSAGES, "tools": []}], 0),
    ("/v1/completions", {"prompt": "a b"}, [{"prompt": "a b"}], 0),
    ("/v1/completions", {"prompt": ["a", "b"]}, [{"prompt": "a"}, {"prompt": "b"}], 0),
    ("/v1/completions", {"prompt": [1, 2, 3]}, [], 3),
    ("/v1/completions", {"prompt": [[1, 2], [3]]}, [], 3),
    ("/v1/completions", {}, None, 0),
    ("/v1/completions", {"prompt": ["a"] * 17}, None, 0),
    ("/v1/embeddings", {"input": "a"}, [{"prompt": "a"}], 0),
    ("/v1/responses", {"input": "hello"}, [{"messages": MESSAGES}], 0),
    (
        "/v1/responses",
        {"instructions": "be", "input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}]},
        [{"messages": [{"role": "system", "content": "be"}, *MESSAGES]}],
        0,
    ),
    ("/v1/responses", {"input": [{"type": "function_call_output", "output": "x"}]}, None, 0),
    ("/v1/score", {"text_1": "a", "text_2": "b"}, None, 0),
]


@pytest.mark.parametrize(("endpoint", "body", "asks", "known"), PROMPTS)
def test_a_prompt_is_what_the_tokenizer_is_asked_about(
    endpoint: str, body: dict[str, Any], asks: list[dict[str, Any]] | None, known: int
) -> None:
    found = prompt.of(endpoint, json.dumps({"model": "m"} | body).encode())
    if asks is None:
        assert found is None
        return
    assert found is not None
    assert [json.loads(raw) for raw in found.asks] == [{"model": "m"} | one for one in asks]
    assert found.known == known
