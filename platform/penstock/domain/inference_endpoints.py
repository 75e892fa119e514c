"""Inference endpoints: the one table of what can be asked of an engine. A new endpoint is a row, and its own code.

`/v1/score`, `/v1/rerank` and `/tokenize` are vLLM's, the others OpenAI's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class PromptKind(StrEnum):
    """Where a body has its prompt, so that an engine's tokenizer can be asked about it (formats/prompt.py)."""

    MESSAGES = "messages"
    PROMPT = "prompt"
    INPUT = "input"
    RESPONSE = "response"


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
    salted: bool = True
    """Its request has `cache_salt`: it reads the prefix cache."""


TABLE: Final = (
    InferenceEndpoint(
        "/v1/chat/completions", "Answer a conversation", "OpenAI's chat completions, streamed or not.",
        PromptKind.MESSAGES, writes=True,
    ),
    InferenceEndpoint(
        "/v1/completions", "Complete a prompt", "OpenAI's completions, streamed or not.",
        PromptKind.PROMPT, writes=True,
    ),
    InferenceEndpoint(
        "/v1/embeddings", "Embed texts", "OpenAI's embeddings, where the model has them.", PromptKind.INPUT
    ),
    InferenceEndpoint(
        "/v1/responses", "Answer an input", "OpenAI's responses, streamed or not, without `background`.",
        PromptKind.RESPONSE, writes=True,
    ),
    InferenceEndpoint("/v1/score", "Score pairs of texts", "vLLM's scores, where the model has them."),
    InferenceEndpoint("/v1/rerank", "Rank documents", "vLLM's rerank, where the model has it."),
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


def named(url: str) -> str:
    """The table's name for a url."""
    return _OTHER_NAMES.get(url, url)
