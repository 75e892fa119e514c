"""The files of `make bench-batch`: what each row sends, drawn with a seed; both sides get the same bytes.

    A  unique chat lines with the trace's lengths
    B  20 shared system prompts of about 700 tokens, shuffled, on an engine whose KV cache holds about 10k tokens
    C  as A, but 40 % of the lines are exact copies of others, shuffled
    D  the trace's prompts with short answers, of which 5 % are 20 times longer, shuffled
    E  C once more, when its answers are in the shared cache
    F  the lines of A, each as a job of its own
    G  embeddings of short texts, of 16 to 20 tokens, on engines that embed; five for two lines
    H  as A, ours through `penstock run`
    I  embeddings of long texts, of 400 tokens

Lines are deterministic (temperature 0). No two prompts begin alike except B's, and C's copies.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, Final

from bench.load import CHAT, Writer
from bench.trace import Size, Trace

MODEL: Final = "tiny"
EMBEDDINGS: Final = "/v1/embeddings"
SCORE: Final = "/v1/score"
EMBEDS: Final = ("--runner", "pooling", "--convert", "embed")
"""What makes an engine that embeds of a model that writes."""
PROMPTS: Final = 20
_CACHED_TOKENS_A_PROMPT: Final = 512
PROMPT_TOKENS: Final = 700
_QUESTION: Final = Size(16, 32)
COPIES: Final = 0.4
LONG_SHARE: Final = 0.05
LONGER: Final = 20
# Twenty times this still fits into the tiny model's context beside a prompt.
_MOST_SHORT_ANSWER: Final = 90
_SHORT_TEXT: Final = (16, 20)
_LONG_TEXT: Final = 400


def small_cache(prompts: int = PROMPTS, block: int = 128) -> tuple[str, ...]:
    """Flags for a KV cache of 10,240 tokens for 20 prompts of 700: one that is not used soon is thrown out."""
    return ("--num-gpu-blocks-override", str(_CACHED_TOKENS_A_PROMPT * prompts // block), "--block-size", str(block))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    words: str
    target: float | None
    engine_args: tuple[str, ...] = ()
    """What both engines are started with besides."""
    off: dict[str, bool] = field(default_factory=dict)
    """How a create says that it wants what the row is about left out."""
    url: str = CHAT


ROWS: Final = {
    row.name: row
    for row in (
        Row("A", "unique lines", 0.97),
        Row("B", f"shared prompts of {PROMPT_TOKENS} tokens, shuffled", 2.2, small_cache(), {"plan": False}),
        Row("C", f"{COPIES:.0%} exact copies", 1.4, off={"dedup": False}),
        Row("D", f"{LONG_SHARE:.0%} of the answers {LONGER} times longer", 1.08, off={"plan": False}),
        Row("E", "C a second time, cache on", 15.0),
        Row("F", "one-line jobs, against ours of A", 0.85),
        Row("G", "embeddings of short texts", 2.2, EMBEDS, url=EMBEDDINGS),
        Row("H", "unique lines, `penstock run`", 0.97),
        Row("I", f"embeddings of {_LONG_TEXT} tokens", 1.2, EMBEDS, url=EMBEDDINGS),
        Row("J", "scores of pairs of short texts", None, EMBEDS, url=SCORE),
    )
}


@dataclass(frozen=True)
class Maker:
    """Draws files."""

    trace: Trace
    writer: Writer
    scale: float
    lines: int
    seed: int
    prompts: int = PROMPTS
    """B's shared ones."""
    alike: bool = False
    """The trace is one size, which was asked for: G's texts have it, too."""

    def bodies(self, row: str, repeat: int) -> list[dict[str, Any]]:
        """The requests of this row's file, in file order; another repeat is another draw."""
        chance = random.Random(f"{self.seed} {row} {repeat}")
        sizes = self.trace.sizes(1_000 * self.seed + repeat, self.scale)
        if row in ("A", "F", "H"):
            return [self.writer.chat(size) for size in islice(sizes, self.lines)]
        if row in ("C", "E"):
            return self._copied(sizes, chance)
        if row in ("G", "I"):
            return [{"model": self.writer.model, "input": text} for text in self._texts(row, sizes, chance)]
        if row == "J":
            texts = self._texts(row, sizes, chance)
            return [{"model": self.writer.model, "text_1": one, "text_2": other} for one, other in pairwise(texts)]
        if row == "D":
            return self._some_long(sizes, chance)
        return self._shared(chance)

    def _copied(self, sizes: Iterator[Size], chance: random.Random) -> list[dict[str, Any]]:
        copies = round(COPIES * self.lines)
        unique = [self.writer.chat(size) for size in islice(sizes, self.lines - copies)]
        return _shuffled([*unique, *chance.choices(unique, k=copies)], chance)

    def _texts(self, row: str, sizes: Iterator[Size], chance: random.Random) -> list[str]:
        """Short ones are five where the long ones are two."""
        if row == "I":
            return [self.writer.text(_LONG_TEXT) for _ in range(self.lines)]
        if self.alike:
            return [self.writer.text(size.prompt) for size in islice(sizes, self.lines)]
        return [self.writer.text(chance.randint(*_SHORT_TEXT)) for _ in range(self.lines * 5 // 2)]

    def _some_long(self, sizes: Iterator[Size], chance: random.Random) -> list[dict[str, Any]]:
        """A quarter of A's answers, so that with the long ones a line costs about half as much again."""
        long = round(LONG_SHARE * self.lines)
        short = [
            Size(size.prompt, min(_MOST_SHORT_ANSWER, max(2, size.answer // 4))) for size in islice(sizes, self.lines)
        ]
        drawn = [Size(size.prompt, size.answer * (LONGER if n < long else 1)) for n, size in enumerate(short)]
        return [self.writer.chat(size) for size in _shuffled(drawn, chance)]

    def _shared(self, chance: random.Random) -> list[dict[str, Any]]:
        prompts = [self.writer.text(PROMPT_TOKENS) for _ in range(self.prompts)]
        made = []
        for n in range(self.lines):
            body = self.writer.chat(_QUESTION)
            system = {"role": "system", "content": prompts[n % self.prompts]}
            made.append(body | {"messages": [system, *body["messages"]]})
        return _shuffled(made, chance)


def jsonl(bodies: Sequence[dict[str, Any]], url: str = CHAT) -> bytes:
    """A batch's input file."""
    lines = (
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": url, "body": body})
        for n, body in enumerate(bodies)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def answers(output: bytes) -> dict[str, tuple[Any, ...]]:
    """What each line of an output file was answered, by custom_id: what the model said, and how many tokens it took;
    of an embedding, how long it is, and the prompt's tokens; of a score, these alone.

    Raises ValueError if a line was not answered, or twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in output.splitlines():
        line = json.loads(text)
        response = line["response"]
        if line.get("error") or not response or response["status_code"] != 200 or line["custom_id"] in found:
            raise ValueError(f"{line['custom_id']} was not answered once: {text[:300]!r}")
        body = response["body"]
        if "data" in body:
            vectors = (len(one["embedding"]) for one in body["data"] if "embedding" in one)
            found[line["custom_id"]] = (*vectors, body["usage"]["prompt_tokens"])
            continue
        said = [(choice["message"]["content"], choice["finish_reason"]) for choice in body["choices"]]
        found[line["custom_id"]] = (*said, body["usage"]["completion_tokens"])
    return found


def likeness(one: bytes, other: bytes) -> dict[str, float]:
    """Two output files of the same embeddings or scores: how many usages are equal, and the least cosine of a line's
    vectors, or how far the scores of a line are apart at most."""
    ones, others = _vectors(one), _vectors(other)
    least, apart, equal = 1.0, 0.0, 0
    for name, (vector, tokens) in ones.items():
        same, counted = others[name]
        equal += tokens == counted
        if isinstance(vector, float):
            apart = max(apart, abs(vector - same))
            continue
        product = sum(a * b for a, b in zip(vector, same, strict=True))
        least = min(least, product / (math.hypot(*vector) * math.hypot(*same)))
    scored = any(isinstance(vector, float) for vector, _ in ones.values())
    found = {"scores_apart": apart} if scored else {"least_cosine": least}
    return {"lines": len(ones), **found, "equal_usage": equal}


def _vectors(output: bytes) -> dict[str, tuple[Any, int]]:
    """Of each line that `answers` took: its vector or its score, and its prompt's tokens."""
    found = {}
    for text in output.splitlines():
        line = json.loads(text)
        body = line["response"]["body"]
        (one,) = body["data"]
        found[line["custom_id"]] = (
            one["embedding"] if "embedding" in one else one["score"],
            body["usage"]["prompt_tokens"],
        )
    return found


def _shuffled(values: list[Any], chance: random.Random) -> list[Any]:
    chance.shuffle(values)
    return values
