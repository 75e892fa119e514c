"""Inference endpoints: the one table of what can be asked of an engine. A new endpoint is a row, and its own code.

`/v1/score`, `/v1/rerank` and `/tokenize` are vLLM's, the others OpenAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class PromptKind(StrEnum):
    """Where a body has its prompt, so that an engine's tokenizer can be asked about it (formats/prompt.py)."""

    MESSAGES = "messages"
    PROMPT = "prompt"
    INPUT = "input"
    RESPONSE = "response"


class NumberKind(StrEnum):
    """What an answer is that is numbers."""

    VECTORS = "vectors"
    SCORES = "scores"
    RANKS = "ranks"


@dataclass(frozen=True)
class InferenceEndpoint:
    """One row."""

    url: str
    summary: str
    """For the API's page."""
    words: str
    prompt: PromptKind | None = None
    """None: nobody can say beforehand how many tokens it has."""
    batched: bool = True
    """Batches and jobs may ask it, waiting calls always."""
    writes: bool = False
    """Its answer is text that the model writes: it draws unless told otherwise, may be streamed, has a service tier
    and output tokens. Else an answer is what the input makes it."""
    numbers: NumberKind | None = None
    """Its answer is these."""
    token_limits: tuple[str, ...] = ()
    """The fields that say how many tokens an answer may have; of several the first one counts, as in vLLM."""
    salted: bool = True
    """Its request has `cache_salt`: it reads the prefix cache."""


EMBEDDINGS: Final = "/v1/embeddings"
SCORE: Final = "/v1/score"
TABLE: Final = (
    InferenceEndpoint(
        "/v1/chat/completions", "Answer a conversation", "OpenAI's chat completions, streamed or not.",
        PromptKind.MESSAGES, writes=True, token_limits=("max_completion_tokens", "max_tokens"),
    ),
    InferenceEndpoint(
        "/v1/completions", "Complete a prompt", "OpenAI's completions, streamed or not.",
        PromptKind.PROMPT, writes=True, token_limits=("max_tokens",),
    ),
    InferenceEndpoint(
        EMBEDDINGS, "Embed texts", "OpenAI's embeddings, where the model has them.", PromptKind.INPUT,
        numbers=NumberKind.VECTORS,
    ),
    InferenceEndpoint(
        "/v1/responses", "Answer an input", "OpenAI's responses, streamed or not, without `background`.",
        PromptKind.RESPONSE, writes=True, token_limits=("max_output_tokens",),
    ),
    InferenceEndpoint(
        SCORE, "Score pairs of texts", "vLLM's scores, where the model has them.", numbers=NumberKind.SCORES
    ),
    InferenceEndpoint(
        "/v1/rerank", "Rank documents", "vLLM's rerank, where the model has it.", numbers=NumberKind.RANKS
    ),
    InferenceEndpoint("/tokenize", "Split a text into tokens", "vLLM's tokenizer.", batched=False, salted=False),
)  # fmt: skip

CALLED: Final = {row.url: row for row in TABLE}
"""All: what a waiting call may ask."""
BATCHED: Final = tuple(row.url for row in TABLE if row.batched)
"""What lines of batches and jobs may ask."""
WRITING: Final = frozenset(row.url for row in TABLE if row.writes)
COMPUTING: Final = frozenset(BATCHED) - WRITING
"""Lines of these have one answer, without output tokens."""
SALTED: Final = frozenset(row.url for row in TABLE if row.salted)
_OTHER_NAMES: Final = {"/score": "/v1/score", "/rerank": "/v1/rerank", "/v2/rerank": "/v1/rerank"}
"""What `vllm run-batch` takes as the url of a line, too; vLLM has one handler for each of these pairs."""
TOKEN_LIMITS: Final = frozenset(name for row in TABLE for name in row.token_limits)
"""All names of the same thing: how many tokens an answer may have."""

_NO_LIMIT_TOKENS: Final = 10_000_000


def named(url: str) -> str:
    """The table's name for a url."""
    return _OTHER_NAMES.get(url, url)


def token_limits(url: str) -> tuple[str, ...]:
    """The names that this endpoint has for it, the one that counts first; none for what is no endpoint of ours."""
    return CALLED[url].token_limits if url in CALLED else ()


def token_limit(url: str, value_of: Callable[[str], object]) -> int | None:
    """How many tokens an answer to such a body may have; None if it does not say, or says what is no number of them."""
    values = map(value_of, token_limits(url))
    return next(
        (n for n in values if isinstance(n, int) and not isinstance(n, bool) and 0 < n < _NO_LIMIT_TOKENS), None
    )


def field_to_limit(url: str, name: str, present: Collection[str]) -> str:
    """The field that must be set so that a limit holds that somebody calls by one of its names.

    `present`: the fields that the body has. The one that counts now, else the one that is named if the endpoint has
    it, else the endpoint's own.
    """
    names = token_limits(url)
    there = [one for one in names if one in present]
    if there or not names:
        return there[0] if there else name
    return name if name in names else names[0]
