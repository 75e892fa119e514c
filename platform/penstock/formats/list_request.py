"""List requests: embeddings of many texts, or scores of many pairs, in one request, made of single ones, and their
answer taken apart again.

Only requests are joined that say nothing but what an engine applies to each input by itself, and whose input is one
text, or one pair of them. What an engine counts of a list is one sum: each input's tokens must be known, and their sum
be the engine's, or the answer is not taken apart. Shapes: OpenAI's and vLLM's (entrypoints/pooling/embed/protocol.py
and scoring/protocol.py: of two lists of the same length it scores the first with the first, and so on).

Vectors come as base64 from the engine whatever was asked, since writing so many numbers as JSON takes vLLM more time
than all else of its HTTP server; they are the same 32-bit floats.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy

from penstock.domain.inference_endpoints import EMBEDDINGS, SCORE, named

_TEXT: Final = ("input",)
_PAIRS: Final = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))
"""vLLM's names of the two texts that are scored together."""
_INPUTS: Final = {EMBEDDINGS: (_TEXT,), SCORE: _PAIRS}
"""What fields an endpoint's input may be in."""
_OURS: Final = ("priority", "cache_salt")
"""What the platform says itself (engine_body.py), for a list as for one."""
_OF_EACH: Final = {
    EMBEDDINGS: frozenset(("model", "encoding_format", "dimensions", "user", "use_activation", *_OURS)),
    SCORE: frozenset(("model", "user", "use_activation", *_OURS)),
}
"""A request that says more goes alone: what it means for the tokens of each of many is not known here."""
_BASE64: Final = msgspec.Raw(b'"base64"')
_IN_JSON: Final = (b'"float"', bytes(_BASE64), b"null")
"""Other formats are answered with bytes, which are no JSON."""
_INDEX: Final = msgspec.Raw(b"0")

Fields = Mapping[str, msgspec.Raw]

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class OneInput:
    """A request of one input that can stand in a list."""

    kind: bytes
    """What it asks besides its input: those that are alike in this go into one request."""
    texts: tuple[str, ...]
    """One, or the two of a pair."""
    in_base64: bool
    """What vectors it wants; else as numbers."""


def read(url: str, body: bytes) -> OneInput | None:
    """The input of a request; None if it goes alone."""
    url = named(url)
    if url not in _INPUTS:
        return None
    try:
        fields = _read_fields(body)
        form = bytes(fields.get("encoding_format", b"null"))
        names = _names(fields, _INPUTS[url])
        texts = tuple(_read_text(fields.pop(name)) for name in names)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    if not all(texts) or not fields.keys() <= _OF_EACH[url] or form not in _IN_JSON:
        return None
    kind = _encode([names, {name: fields[name] for name in sorted(fields)}])
    return OneInput(kind, texts, form == bytes(_BASE64))


def _names(fields: Fields, inputs: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The fields that have the input. Raises KeyError if it is in none of these."""
    for names in inputs:
        if all(name in fields for name in names):
            return names
    raise KeyError


def joined(bodies: Sequence[bytes]) -> bytes:
    """One request for the inputs of some that `read` found alike, in their order."""
    asked = [_read_fields(body) for body in bodies]
    names = _names(asked[0], (_TEXT, *_PAIRS))
    lists = {name: msgspec.Raw(b"[" + b",".join(bytes(one[name]) for one in asked) + b"]") for name in names}
    return _encode(asked[0] | lists | ({"encoding_format": _BASE64} if names == _TEXT else {}))


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


def apart(answer: bytes, tokens: Sequence[tuple[int, ...]], *, in_base64: bool) -> list[bytes | None] | None:
    """The answer to each input, as if it had been asked alone.

    `tokens`: how many each input may be to the engine, in their order; those are right whose sum is the engine's, and
    where several are, what they differ in is not known: None for such an input.
    None if it can't be told of any what it would have been: another count of answers or tokens, or cached tokens.
    """
    try:
        said, fields = _read_answer(answer), _read_fields(answer)
        usage = _read_fields(fields["usage"])
        places = [int(bytes(one["index"])) for one in said.data]
        results = [_alone(one, in_base64=in_base64) for one in said.data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, ValueError):
        return None
    total, details = said.usage.prompt_tokens, said.usage.prompt_tokens_details or {}
    fitting = [counts for counts in zip(*tokens, strict=True) if sum(counts) == total]
    alike = (said.usage.total_tokens, said.usage.completion_tokens or 0) == (total, 0) and not any(details.values())
    if not fitting or not alike or places != list(range(len(tokens))):
        return None
    counts = map(set, zip(*fitting, strict=True))
    return [
        _told(fields, f"{said.id}-{place}", result, usage, count.pop()) if len(count) == 1 else None
        for place, (result, count) in enumerate(zip(results, counts, strict=True))
    ]


def _told(fields: Fields, name: str, result: Fields, usage: Fields, tokens: int) -> bytes:
    """A list's answer with one result alone, named as vLLM itself names a list's inputs."""
    counted = dict(usage) | {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode(dict(fields) | {"id": name, "data": [result], "usage": counted})


def _alone(one: Fields, *, in_base64: bool) -> dict[str, msgspec.Raw]:
    """A vector or a score as the only one. Raises KeyError or ValueError if it is neither."""
    result = dict(one) | {"index": _INDEX}
    if "embedding" in one:
        return result if in_base64 else result | {"embedding": _numbers(one["embedding"])}
    return result | {"score": one["score"]}


def _numbers(vector: msgspec.Raw) -> msgspec.Raw:
    """A vector as JSON numbers. Raises ValueError on what is neither that nor base64."""
    if bytes(memoryview(vector)[:1]) == b"[":
        return vector
    return msgspec.Raw(_encode(numpy.frombuffer(base64.b64decode(_read_text(vector)), numpy.float32).tolist()))
