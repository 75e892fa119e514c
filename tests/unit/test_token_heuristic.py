"""Estimates of a line's tokens: by what its model's settled slices taught, where they did."""

from __future__ import annotations

from penstock.domain.fleet.model import ModelFacts
from penstock.formats.input import Checked
from penstock.formats.prefix import PromptFields
from penstock.service.estimates import token_heuristic
from penstock.settings import Settings

CHAT = "/v1/chat/completions"
SETTINGS = Settings(bytes_per_token=4.0, expected_output_tokens=256)


def tokens(
    most: int | None = None,
    facts: ModelFacts | None = None,
    endpoint: str = CHAT,
    line_bytes: int = 500,
    answers: int = 1,
) -> int:
    return token_heuristic.tokens(
        Checked("a", "tiny", most, answers, bytes(400), PromptFields()), line_bytes, endpoint, facts, SETTINGS
    )


def test_before_anything_is_known_the_settings_say() -> None:
    assert tokens() == tokens(facts=ModelFacts()) == 100 + 256
    assert tokens(most=1_000) == 100 + 1_000


def test_each_of_several_answers_counts() -> None:
    assert tokens(most=10, answers=128) == 100 + 1_280


def test_measured_bytes_per_token_count_the_whole_line() -> None:
    assert tokens(facts=ModelFacts(bytes_per_token=2.5)) == 200 + 256


def test_the_models_mean_is_the_forecast_as_far_as_the_line_allows_it() -> None:
    facts = ModelFacts(output_tokens=60)
    assert tokens(facts=facts) == 160
    assert tokens(most=200, facts=facts) == 160
    assert tokens(most=16, facts=facts) == 116


def test_a_mean_of_short_answers_does_not_make_long_slices_of_a_batch_that_allows_long_ones() -> None:
    assert tokens(most=8_000, facts=ModelFacts(output_tokens=5)) == 1_100


def test_embeddings_and_scores_have_no_answer_to_wait_for() -> None:
    for endpoint in ("/v1/embeddings", "/v1/score", "/v1/rerank"):
        assert tokens(endpoint=endpoint) == 100


def test_odd_facts_make_no_odd_numbers() -> None:
    assert tokens(facts=ModelFacts(bytes_per_token=1e-9)) == 2**31
    assert tokens(facts=ModelFacts(bytes_per_token=1e9), endpoint="/v1/embeddings") == 1
