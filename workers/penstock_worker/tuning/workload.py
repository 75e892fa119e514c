"""The workload: lines of real shape, the same for each point of a tuning.

Lengths have the quantiles of the conversation part of the Azure LLM inference trace 2023 (19,366 requests of one hour,
CC-BY 4.0; Patel et al., "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024), prompt and
answer independently (their rank correlation there is 0.07). Each stretch of 32 lines has the whole distribution, so
that no part of a run is heavier than another. No two prompts begin alike: prefix caches help nobody.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from penstock.domain.inference_endpoints import TABLE, InferenceEndpoint, PromptKind

QUANTILES: Final = (0, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 1)
PROMPT_TOKENS: Final = (
    2, 29, 181, 207, 387, 396, 403, 703, 1020, 1071, 1130, 1189, 1315, 2734, 4083, 4142, 14050,
)  # fmt: skip
ANSWER_TOKENS: Final = (7, 16, 41, 54, 77, 85, 91, 103, 129, 177, 384, 395, 400, 424, 451, 601, 1000)
ENDPOINTS: Final = tuple(row for row in TABLE if row.prompt in (PromptKind.PROMPT, PromptKind.INPUT))
"""Where lines may go: the first that the model has."""
_STRETCH: Final = 32
_WORDS: Final = tuple(
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "  # noqa: SIM905
    "one you were her all she there would their we him been has when who will more no if out so said what up its about"
    .split()
)  # fmt: skip


@dataclass(frozen=True)
class LineShape:
    """What lines of this model may be: where they go, tokens a word, and how long a prompt with its answer may be."""

    endpoint: InferenceEndpoint = ENDPOINTS[0]
    tokens_per_word: float = 1.3
    context: int = 4_096

    def words(self, tokens: int) -> int:
        """How many words have about so many tokens, within half of the context."""
        return max(1, round(min(tokens, self.context // 2) / self.tokens_per_word))


def lines(shape: LineShape, model: str, count: int, seed: int) -> Iterator[bytes]:
    """Bodies of requests; another seed has other words of the same lengths."""
    sizes = _sizes()
    for number in range(count):
        prompt, answer = sizes[number % _STRETCH]
        yield body(shape, model, shape.words(prompt), min(answer, shape.context // 4), seed * 1_000_003 + number)


def body(shape: LineShape, model: str, words: int, answer: int, seed: int) -> bytes:
    """One request's body, of so many words."""
    text = " ".join(random.Random(seed).choices(_WORDS, k=words))
    fields: dict[str, Any] = {"model": model}
    if not shape.endpoint.writes:
        fields["input"] = text
    else:
        # What a model of random weights would end at random is to have the length that is asked for.
        fields |= {"prompt": text, "max_tokens": max(1, answer), "temperature": 0.0, "ignore_eos": True}
    return msgspec.json.encode(fields)


def _sizes() -> Sequence[tuple[int, int]]:
    middles = (np.arange(_STRETCH) + 0.5) / _STRETCH
    chance = random.Random(2023)
    columns = []
    for tokens in (PROMPT_TOKENS, ANSWER_TOKENS):
        column = [round(float(value)) for value in np.interp(middles, QUANTILES, tokens)]
        chance.shuffle(column)
        columns.append(column)
    return list(zip(*columns, strict=True))
