"""List requests: embeddings of many inputs in one request, made of single ones, and their answer taken apart again.

Only requests are joined that say nothing but what an engine applies to each input by itself, and whose input is one
text. What an engine counts of a list is one sum: each input's tokens must be known, and their sum be the engine's, or
the answer is not taken apart. Shapes: OpenAI's and vLLM's (entrypoints/pooling/embed/protocol.py).

Vectors come as base64 from the engine whatever was asked, since writing so many numbers as JSON takes vLLM more time
than all else of its HTTP server; they are the same 32-bit floats.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy

from penstock.domain.inference_endpoints import EMBEDDINGS

_OF_EACH: Final = frozenset(("model", "input", "encoding_format", "dimensions", "user", "use_activation"))
"""A request that says more goes alone: what it means for the tokens of each of many is not known here."""
_BASE64: Final = msgspec.Raw(b'"base64"')
_IN_JSON: Final = (b'"float"', bytes(_BASE64), b"null")
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
    in_base64: bool
    """What vectors it wants; else as numbers."""


def read(url: str, body: bytes) -> OneInput | None:
    """The input of a request; None if it goes alone."""
    if url != EMBEDDINGS:
        return None
    try:
        fields = _read_fields(body)
        form = bytes(fields.get("encoding_format", b"null"))
        if not fields.keys() <= _OF_EACH or form not in _IN_JSON:
            return None
        text = _read_text(fields.pop("input"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    kind = _encode({name: fields[name] for name in sorted(fields)})
    return OneInput(kind, text, form == bytes(_BASE64)) if text else None


def joined(bodies: Sequence[bytes]) -> bytes:
    """One request for the inputs of some that `read` found alike, in their order."""
    inputs = b",".join(bytes(_read_fields(body)["input"]) for body in bodies)
    said = {"input": msgspec.Raw(b"[" + inputs + b"]"), "encoding_format": _BASE64}
    return _encode(_read_fields(bodies[0]) | said)


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


def apart(answer: bytes, tokens: Sequence[int], *, in_base64: bool) -> list[bytes] | None:
    """The answer to each input, as if it had been asked alone; `tokens` are those of the inputs, in their order.

    None if it can't be told what each would have been: another count of answers or tokens, or cached tokens.
    """
    try:
        said, fields = _read_answer(answer), _read_fields(answer)
        usage = _read_fields(fields["usage"])
        places = [int(bytes(one["index"])) for one in said.data]
        vectors = [one["embedding"] if in_base64 else _numbers(one["embedding"]) for one in said.data]
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
                "data": [one | {"index": _INDEX, "embedding": vector}],
                "usage": usage | {"prompt_tokens": count, "total_tokens": count},
            }
        )
        for place, (one, vector, count) in enumerate(zip(said.data, vectors, tokens, strict=True))
    ]


def _numbers(vector: msgspec.Raw) -> msgspec.Raw:
    """A vector as JSON numbers. Raises ValueError on what is neither that nor base64."""
    if bytes(memoryview(vector)[:1]) == b"[":
        return vector
    return msgspec.Raw(_encode(numpy.frombuffer(base64.b64decode(_read_text(vector)), numpy.float32).tolist()))
