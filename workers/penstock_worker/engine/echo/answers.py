"""What the echo engine says: the body of each endpoint's answer, made from the request alone."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cachetools import FIFOCache

from penstock_worker.engine.echo.markers import Script
from penstock_worker.engine.echo.schema_answers import asked_schema, fitting

_MOST_REMEMBERED: Final = 100_000
_DIMENSIONS: Final = 8

Body = dict[str, Any]


class EchoRefusal(Exception):
    """A request that the engine does not take."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "BadRequestError",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class Voice:
    """What is the same in every answer, and what was said before."""

    def __init__(self, model: str, output_tokens: int | None, born: int) -> None:
        self.model = model
        self.output_tokens = output_tokens
        self.born = born
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefixes: FIFOCache[str, None] = FIFOCache(_MOST_REMEMBERED)

    def cached(self, prefix: str) -> int:
        """Tokens of a prompt's first part that came before: whole blocks of 16, as in a prefix cache."""
        if prefix in self.prefixes:
            return tokens_of(prefix) // 16 * 16
        self.prefixes[prefix] = None
        return 0

    def speak(self, text: str, script: Script, most: object) -> tuple[str, int, str]:
        """The answer to a text: what it says, its tokens (thoughts included), and why it ends."""
        if script.says is not None:
            text = script.says
        wanted = script.output_tokens or self.output_tokens
        if wanted:
            text += " echo" * max(0, wanted - tokens_of(text))
        if script.nul:
            text += "\0"
        tokens = script.thoughts + (wanted or tokens_of(text))
        if script.needs and not (isinstance(most, int) and most >= script.needs):
            raise EchoRefusal(400, f"max_tokens must be at least {script.needs}.", param="max_tokens")
        if isinstance(most, int) and 0 < most <= script.thoughts:
            return "", most, "length"
        if isinstance(most, int) and 0 < most < tokens:
            return text, most, "length"
        return text, tokens, "stop"

    def usage(self, prompt: int, completion: int, cached: int) -> Body:
        """OpenAI's usage object; counts for /metrics too."""
        self.prompt_tokens += prompt
        self.generation_tokens += completion
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


Answerer = Callable[[Voice, Body, Script, str], Body]


def _chat(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise EchoRefusal(400, "messages must be a list of at least one message.", param="messages")
    texts = [_text(message.get("content")) for message in messages]
    last = next(
        (t for m, t in zip(reversed(messages), reversed(texts), strict=True) if m.get("role") == "user"), texts[-1]
    )
    schema = asked_schema(body)
    wanted = last if schema is None else fitting(schema, last)
    said, tokens, end = echo.speak(wanted, script, body.get("max_completion_tokens") or body.get("max_tokens"))
    if schema is not None and said:
        said = wanted[: len(wanted) // 2] if end == "length" else wanted
    cached = echo.cached(texts[0]) if len(texts) > 1 else 0
    message = {"role": "assistant", "content": said, "refusal": None}
    choices = [{"index": i, "message": message, "logprobs": None, "finish_reason": end} for i in range(_choices(body))]
    return {
        "id": f"chatcmpl-{identity}",
        "object": "chat.completion",
        "created": echo.born,
        "model": echo.model,
        "choices": choices,
        "usage": echo.usage(sum(map(tokens_of, texts)), tokens * len(choices), cached),
    }


def _complete(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    prompt = body.get("prompt")
    if prompt is None:
        raise EchoRefusal(400, "prompt is missing.", param="prompt")
    prompts = prompt if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else [prompt]
    choices, prompt_tokens, tokens = [], 0, 0
    for index, one in enumerate(prompts):
        said, count, end = echo.speak(_text(one), script, body.get("max_tokens"))
        choices.append({"index": index, "text": said, "logprobs": None, "finish_reason": end})
        prompt_tokens += tokens_of(_text(one))
        tokens += count
    return {
        "id": f"cmpl-{identity}",
        "object": "text_completion",
        "created": echo.born,
        "model": echo.model,
        "choices": choices,
        "usage": echo.usage(prompt_tokens, tokens, 0),
    }


def _respond(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    asked = body.get("input")
    if asked is None:
        raise EchoRefusal(400, "input is missing.", param="input")
    items = asked if isinstance(asked, list) else [{"content": asked}]
    texts = [_text(item.get("content") if isinstance(item, dict) else item) for item in items] or [""]
    said, tokens, end = echo.speak(texts[-1], script, body.get("max_output_tokens"))
    usage = echo.usage(sum(map(tokens_of, texts)), tokens, 0)
    content = [{"type": "output_text", "text": said, "annotations": [], "logprobs": []}]
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": echo.born,
        "status": "completed" if end == "stop" else "incomplete",
        "error": None,
        "incomplete_details": None if end == "stop" else {"reason": "max_output_tokens"},
        "model": echo.model,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "tools": body.get("tools") or [],
        "tool_choice": body.get("tool_choice") or "auto",
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "temperature": body.get("temperature", 1.0),
        "top_p": body.get("top_p", 1.0),
        "max_output_tokens": body.get("max_output_tokens"),
        "output": [
            {"type": "message", "id": f"msg_{identity}", "status": "completed", "role": "assistant", "content": content}
        ],
        "usage": {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"] | {"cache_write_tokens": 0},
            "output_tokens": tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        },
    }


def _embed(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    asked = body.get("input")
    if asked is None:
        raise EchoRefusal(400, "input is missing.", param="input")
    inputs = asked if isinstance(asked, list) and asked and isinstance(asked[0], str | list) else [asked]
    packed = body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(map(_text, inputs)):
        vector = vector_of(text)
        shown = base64.b64encode(struct.pack(f"<{_DIMENSIONS}f", *vector)).decode() if packed else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = sum(tokens_of(_text(one)) for one in inputs)
    return {
        "id": f"embd-{identity}",
        "object": "list",
        "created": echo.born,
        "model": echo.model,
        "data": data,
        "usage": echo.usage(tokens, 0, 0),
    }


def _score(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    query = body.get("text_1", body.get("queries", body.get("data_1")))
    documents = body.get("text_2", body.get("documents", body.get("items", body.get("data_2"))))
    if query is None or documents is None:
        raise EchoRefusal(400, "text_1 and text_2 are needed.")
    seconds = documents if isinstance(documents, list) else [documents]
    firsts = query if isinstance(query, list) else [query] * len(seconds)
    pairs = [(_text(a), _text(b)) for a, b in zip(firsts, seconds, strict=False)]
    scores = [{"index": i, "object": "score", "score": _likeness(a, b)} for i, (a, b) in enumerate(pairs)]
    tokens = sum(tokens_of(a) + tokens_of(b) for a, b in pairs)
    return {
        "id": f"score-{identity}",
        "object": "list",
        "created": echo.born,
        "model": echo.model,
        "data": scores,
        "usage": echo.usage(tokens, 0, 0),
    }


def _rerank(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    query, documents = body.get("query"), body.get("documents")
    if query is None or not isinstance(documents, list):
        raise EchoRefusal(400, "query and documents are needed.")
    texts = [_text(document) for document in documents]
    results = [
        {"index": i, "document": {"text": text}, "relevance_score": _likeness(_text(query), text)}
        for i, text in enumerate(texts)
    ]
    results.sort(key=lambda result: -float(result["relevance_score"]))  # type: ignore[arg-type] # it is one
    usage = echo.usage(tokens_of(_text(query)) + sum(map(tokens_of, texts)), 0, 0)
    return {
        "id": f"rerank-{identity}",
        "model": echo.model,
        "usage": usage,
        "results": results[: body.get("top_n") or None],
    }


def _tokenize(echo: Voice, body: Body, script: Script, identity: str) -> Body:
    text = _text(body.get("prompt", "")) + "".join(_text(m.get("content")) for m in body.get("messages", ()))
    return {"count": tokens_of(text), "max_model_len": 1_000_000, "tokens": list(range(tokens_of(text)))}


ANSWERS: Final[dict[str, Answerer]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _complete,
    "/v1/responses": _respond,
    "/v1/embeddings": _embed,
    "/v1/score": _score,
    "/score": _score,
    "/v1/rerank": _rerank,
    "/rerank": _rerank,
    "/tokenize": _tokenize,
}


def _text(content: object) -> str:
    """The text of a prompt: a string, OpenAI's content parts, or token numbers."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text", "") if isinstance(part, dict) else str(part) for part in content]
        return " ".join(str(part) for part in parts)
    return "" if content is None else str(content)


def tokens_of(text: str) -> int:
    """Four characters are one."""
    return max(1, len(text) // 4)


def counted(inputs: Sequence[str | tuple[str, ...]]) -> list[int]:
    """The tokens of each text, or pair of texts."""
    return [tokens_of(one) if isinstance(one, str) else sum(map(tokens_of, one)) for one in inputs]


def _choices(body: Body) -> int:
    wanted = body.get("n") or 1
    if not isinstance(wanted, int) or not 1 <= wanted <= 128:
        raise EchoRefusal(400, "n must be a number from 1 to 128.", param="n")
    return wanted


def vector_of(text: str) -> list[float]:
    """A unit vector that depends on the text alone."""
    raw = [zlib.crc32(f"{place}{text}".encode(errors="replace")) / 0xFFFFFFFF - 0.5 for place in range(_DIMENSIONS)]
    length = sum(x * x for x in raw) ** 0.5
    # As 32-bit floats, as a model computes them: they are the same however they are written.
    return list(struct.unpack(f"{_DIMENSIONS}f", struct.pack(f"{_DIMENSIONS}f", *(x / length for x in raw))))


def _likeness(one: str, other: str) -> float:
    """The share of words that two texts have in common."""
    first, second = set(one.lower().split()), set(other.lower().split())
    return len(first & second) / max(1, len(first | second))
