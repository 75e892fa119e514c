"""List requests: embeddings of many inputs in one request, made of single ones, and their answer taken apart again.

Only requests are joined that say nothing but what an engine applies to each input by itself, and whose input is one
text. What an engine counts of a list is one sum: each input's tokens must be known, and their sum be the engine's, or
the answer is not taken apart. Shapes: OpenAI's and vLLM's (entrypoints/pooling/embed/protocol.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

EMBEDDINGS: Final = "/v1/embeddings"
_OF_EACH: Final = frozenset(
    ("model", "input", "encoding_format", "dimensions", "user", "embed_dtype", "endianness", "use_activation")
)
"""A request that says more goes alone: what it means for the tokens of each of many is not known here."""
_IN_JSON: Final = (b'"float"', b'"base64"', b"null")
"""Other formats are answered with bytes, which are no JSON."""
_INDEX: Final = msgspec.Raw(b"0")

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class OneInput:
    """A request of one input that can stand in a list."""

    kind: bytes
    """What it asks besides its input: those that are alike in this go into one request."""
    text: str


def read(url: str, body: bytes) -> OneInput | None:
    """The input of a request; None if it goes alone."""
    if url != EMBEDDINGS:
        return None
    try:
        fields = _read_fields(body)
        if not fields.keys() <= _OF_EACH or bytes(fields.get("encoding_format", b"null")) not in _IN_JSON:
            return None
        text = _read_text(fields.pop("input"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    return OneInput(_encode({name: fields[name] for name in sorted(fields)}), text) if text else None


def joined(bodies: Sequence[bytes]) -> bytes:
    """One request for the inputs of some that `read` found alike, in their order."""
    inputs = b",".join(bytes(_read_fields(body)["input"]) for body in bodies)
    return _encode(_read_fields(bodies[0]) | {"input": msgspec.Raw(b"[" + inputs + b"]")})


class _Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: dict[str, Any] | None = None


class _Answer(msgspec.Struct):
    id: str
    data: list[dict[str, msgspec.Raw]]
    usage: _Usage


_read_answer = msgspec.json.Decoder(_Answer).decode


def apart(answer: bytes, tokens: Sequence[int]) -> list[bytes] | None:
    """The answer to each input, as if it had been asked alone; `tokens` are those of the inputs, in their order.

    None if it can't be told what each would have been: another count of answers or tokens, or cached tokens.
    """
    try:
        said, fields = _read_answer(answer), _read_fields(answer)
        usage = _read_fields(fields["usage"])
        places = [int(bytes(one["index"])) for one in said.data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, ValueError):
        return None
    sums = (said.usage.prompt_tokens, said.usage.total_tokens, said.usage.completion_tokens or 0)
    details = said.usage.prompt_tokens_details or {}
    if places != list(range(len(tokens))) or sums != (sum(tokens), sum(tokens), 0) or any(details.values()):
        return None
    return [
        _encode(
            fields
            | {
                "id": f"{said.id}-{place}",  # as vLLM itself calls a list's inputs
                "data": [one | {"index": _INDEX}],
                "usage": usage | {"prompt_tokens": count, "total_tokens": count},
            }
        )
        for place, (one, count) in enumerate(zip(said.data, tokens, strict=True))
    ]
