"""Bodies as the echo engine reads and writes them: JSON, also with what strict JSON does not know."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from penstock_worker.engine.echo.answers import EchoRefusal

_NOTED_CHARACTERS: Final = 80

Body = dict[str, Any]


class _Typed(msgspec.Struct):
    """The types of what this engine reads: vLLM refuses others with a 400, numbers in texts aside, as this does."""

    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None
    input: str | list[Any] | dict[str, Any] | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream_options: dict[str, Any] | None = None
    encoding_format: str | None = None
    top_n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    instructions: str | None = None


def asked(body: Body) -> list[str]:
    """The beginning of what is asked, on one line; of a list of texts that of each."""
    messages = body.get("messages")
    users = (
        [m for m in messages if isinstance(m, dict) and m.get("role") == "user"] if isinstance(messages, list) else []
    )
    found = users[-1].get("content") if users else body.get("prompt", body.get("input", ""))
    texts = found if isinstance(found, list) and found and all(isinstance(one, str) for one in found) else [found]
    return [" ".join(str(text)[:_NOTED_CHARACTERS].splitlines()).replace("\t", " ") for text in texts]


def decode(raw: bytes) -> Body:
    """A request's body. Raises EchoRefusal."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            body = json.loads(raw)  # Slower, but it takes lone surrogates.
        except (ValueError, RecursionError) as error:
            raise EchoRefusal(400, f"The body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise EchoRefusal(400, "The body must be a JSON object.")
    try:
        msgspec.convert(body, _Typed, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise EchoRefusal(400, f"{what}.", param=where.rstrip("`") or None) from None
    return body


def encode(body: Body) -> bytes:
    """An answer's body."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return json.dumps(body).encode()
